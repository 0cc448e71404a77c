// Command podlink remembers which pod of a stateful service holds which user.
package main

import (
	"flag"
	"fmt"
	"os"
	"runtime"

	"github.com/go-kratos/kratos/v2"
	"github.com/go-kratos/kratos/v2/log"
	"github.com/go-kratos/kratos/v2/middleware/tracing"
	kgrpc "github.com/go-kratos/kratos/v2/transport/grpc"
	khttp "github.com/go-kratos/kratos/v2/transport/http"

	"podlink/internal/biz"
	"podlink/internal/conf"
	"podlink/internal/data"
	"podlink/internal/registration"
	"podlink/internal/server"
	"podlink/internal/telemetry"
	"podlink/internal/version"
)

func main() {
	os.Exit(run(os.Args[1:]))
}

// run returns the exit code: 0 after a signal to stop, 2 for a wrong flag or configuration, 1 for what failed later.
func run(args []string) int {
	flags := flag.NewFlagSet("podlink", flag.ContinueOnError)
	path := flags.String("conf", "", "configuration: a YAML file or a folder of them; without it the defaults apply")
	showVersion := flags.Bool("version", false, "print the version and exit")
	flags.Usage = func() {
		fmt.Fprintf(flags.Output(), "podlink remembers which pod of a stateful service holds which user.\n\n"+
			"Usage: podlink [-conf PATH] [-version]\n\n")
		flags.PrintDefaults()
		fmt.Fprintf(flags.Output(), "\nThe environment overrides every key: data.redis.password is %sDATA_REDIS_PASSWORD.\n",
			conf.EnvPrefix)
	}
	if err := flags.Parse(args); err != nil {
		if err == flag.ErrHelp { //nolint:errorlint // It is never wrapped.
			return 0
		}
		return 2
	}
	if flags.NArg() > 0 {
		fmt.Fprintf(os.Stderr, "podlink: unexpected argument %q; the configuration is given with -conf\n", flags.Arg(0))
		return 2
	}
	if *showVersion {
		fmt.Printf("podlink %s %s %s/%s\n", version.Version, runtime.Version(), runtime.GOOS, runtime.GOARCH)
		return 0
	}
	config, err := conf.Load(*path, os.LookupEnv)
	if err != nil {
		fmt.Fprintf(os.Stderr, "podlink: %v\n", err)
		return 2
	}
	level := telemetry.NewLogLevel(config.GetLog().GetLevel())
	logger := log.With(telemetry.NewLogger(config.GetLog(), level, os.Stderr), "trace_id", tracing.TraceID())
	log.SetLogger(logger)
	if err := serve(config, level, logger); err != nil {
		log.Errorf("podlink stops: %v", err)
		return 1
	}
	return 0
}

// ballastBytes are allocated and never touched, so they take no memory. But the garbage collector counts them, and so it
// runs when the heap has grown by as much: without them it would at every few megabytes, because podlink keeps next to
// nothing. That costs a tenth of a call's CPU time (docs/performance.md).
const ballastBytes = 16 << 20

func serve(config *conf.Bootstrap, level *telemetry.LogLevel, logger log.Logger) error {
	app, cleanup, err := wireApp(config, level, logger)
	if err != nil {
		return err
	}
	defer cleanup()
	ballast := make([]byte, ballastBytes)
	defer runtime.KeepAlive(ballast)
	return app.Run()
}

func limits(c *conf.Bootstrap) biz.Limits {
	return biz.Limits{MaxBatch: int(c.GetLimits().GetMaxBatch())}
}

func podTTL(c *conf.Bootstrap) biz.TTL { return biz.TTL(c.GetState().GetPodTtl().GetSeconds()) }

// collectors are the metrics of the layers below the server.
func collectors(domain *telemetry.Domain, store *data.Store, keeper *registration.Keeper) server.Collectors {
	return server.Collectors{domain, store, keeper}
}

func newApp(
	c *conf.Server, r *conf.Registry, logger log.Logger, store *data.Store, drain *server.Drain, keeper *registration.Keeper,
	http *khttp.Server, grpc *kgrpc.Server, admin *server.AdminServer,
) (*kratos.App, error) {
	endpoints, err := registration.Endpoints(r)
	if err != nil {
		return nil, err
	}
	return kratos.New(
		kratos.Name("podlink"),
		kratos.Version(version.Version),
		kratos.Logger(logger),
		kratos.Server(store, http, grpc, admin),
		kratos.Metadata(conf.Pairs(r.GetMetadata())),
		kratos.Endpoint(endpoints...),
		kratos.Registrar(keeper),
		// Who looks podlink up finds it no more, while who has found it is still served.
		kratos.BeforeStop(keeper.Leave),
		kratos.BeforeStop(drain.Run),
		kratos.StopTimeout(c.GetStop().GetTimeout().AsDuration()),
	), nil
}
