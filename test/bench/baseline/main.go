//go:build bench

// Command baseline is the server that podlink's service is compared with. It has podlink's API, configuration, listeners and
// middleware chain, but Kratos' default codecs, decoders and encoders, and trivial handlers. In embedded mode it answers from a
// map; on a Redis each call is one plain command.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"

	"github.com/go-kratos/kratos/v2"
	"github.com/go-kratos/kratos/v2/log"
	ktracing "github.com/go-kratos/kratos/v2/middleware/tracing"
	kgrpc "github.com/go-kratos/kratos/v2/transport/grpc"
	khttp "github.com/go-kratos/kratos/v2/transport/http"
	"github.com/redis/go-redis/v9"

	v1 "podlink/api/podlink/v1"
	"podlink/internal/conf"
	"podlink/internal/server"
	"podlink/internal/telemetry"
)

func main() {
	path := flag.String("conf", "", "podlink's configuration")
	flag.Parse()
	if err := run(*path); err != nil {
		fmt.Fprintln(os.Stderr, "baseline:", err)
		os.Exit(1)
	}
}

// run serves until a signal. It logs its addresses in the same words as podlink.
func run(path string) error {
	config, err := conf.Load(path, os.Environ())
	if err != nil {
		return err
	}
	level := telemetry.NewLogLevel(config.GetLog().GetLevel())
	logger := log.With(telemetry.NewLogger(config.GetLog(), level, os.Stderr), "trace_id", ktracing.TraceID())
	log.SetLogger(logger)
	provider, closeProvider, err := telemetry.NewTracerProvider(config.GetTrace(), nil, logger)
	if err != nil {
		return err
	}
	defer closeProvider()
	metrics, err := server.NewMetrics(nil)
	if err != nil {
		return err
	}
	api, settings := &links{pods: storeOf(config.GetData().GetRedis())}, config.GetServer()
	chain, closeChain := server.NewChain(server.ChainOptions{
		Server: settings, Log: config.GetLog(), Tracer: provider, Metrics: metrics, Logger: logger,
	})
	defer closeChain()
	http := khttp.NewServer(khttp.Address(settings.GetHttp().GetAddr()),
		khttp.Timeout(settings.GetHttp().GetTimeout().AsDuration()), khttp.Middleware(chain.Unary))
	v1.RegisterLinkServiceHTTPServer(http, api)
	grpc := kgrpc.NewServer(kgrpc.Address(settings.GetGrpc().GetAddr()),
		kgrpc.Timeout(settings.GetGrpc().GetTimeout().AsDuration()), kgrpc.Middleware(chain.Unary))
	v1.RegisterLinkServiceServer(grpc, api)
	admin := server.NewAdminServer(server.AdminOptions{
		Server: settings, Connections: server.NewConnections(settings, nil), Store: ready{}, Drain: server.NewDrain(settings),
		Metrics: metrics, Level: level, Logger: logger,
	})
	return kratos.New(kratos.Logger(logger), kratos.Server(http, grpc, admin)).Run()
}

func storeOf(c *conf.Data_Redis) store {
	if c.GetMode() == conf.ModeEmbedded {
		return &memory{pods: make(map[string]int32)}
	}
	return plain{redis.NewClient(&redis.Options{
		Addr: c.GetAddrs()[0], PoolSize: int(c.GetPoolSize()), ContextTimeoutEnabled: true,
	})}
}

// ready is a server.Checker that is always ready.
type ready struct{}

// Last implements server.Checker.
func (ready) Last(context.Context) error { return nil }
