// Package pod is one pod of the chat: a Kratos app with podlink's agent.
package pod

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/go-kratos/kratos/contrib/registry/etcd/v2"
	"github.com/go-kratos/kratos/v2"
	"github.com/go-kratos/kratos/v2/log"
	"github.com/go-kratos/kratos/v2/middleware/recovery"
	"github.com/go-kratos/kratos/v2/registry"
	"github.com/go-kratos/kratos/v2/transport"
	kgrpc "github.com/go-kratos/kratos/v2/transport/grpc"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"podlink/client"
	chatv1 "podlink/examples/chat/api/chat/v1"
	"podlink/examples/chat/names"
)

const (
	// registryTTL is the lifetime of a dead pod's registration.
	registryTTL = 5 * time.Second
	// dialTimeout bounds the connection to etcd.
	dialTimeout = 3 * time.Second
	// drainReserve is what a drain may take beside the time in which the pod keeps its rooms.
	drainReserve = 10 * time.Second
)

// Options configures a pod.
type Options struct {
	Name    string        // such as chat-2
	Addr    string        // host:port to listen on
	Podlink string        // podlink's address, used without etcd
	Shows   Files         // what podlink is shown; empty: it asks for nothing
	Etcd    string        // host:port; empty: no registration
	Store   string        // host:port of the rooms' store
	TTL     time.Duration // lifetime of a report to podlink
	Linger  time.Duration // how long a stopping pod keeps its rooms
	Logger  log.Logger
}

// Files are PEM files and a token by which a pod and podlink know each other.
type Files struct{ CA, Cert, Key, Token string }

// Run runs the pod until ctx ends or the process gets a signal to stop.
func Run(ctx context.Context, o Options) error {
	target, options := o.Podlink, client.Options{
		CAFile: o.Shows.CA, CertFile: o.Shows.Cert, KeyFile: o.Shows.Key, TokenFile: o.Shows.Token,
	}
	var registrar registry.Registrar
	if o.Etcd != "" {
		conn, err := clientv3.New(clientv3.Config{Endpoints: []string{o.Etcd}, DialTimeout: dialTimeout, Logger: zap.NewNop()})
		if err != nil {
			return err
		}
		defer conn.Close()
		registered := etcd.New(conn, etcd.RegisterTTL(registryTTL))
		target, options.Discovery, registrar = "discovery:///podlink", registered, registered
	}
	toStore, err := grpc.NewClient(o.Store, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	defer toStore.Close()
	chat := &rooms{
		store: chatv1.NewStoreServiceClient(toStore), process: fmt.Sprintf("%s, process %d", o.Name, os.Getpid()), open: map[string]*room{},
	}

	podlink, err := client.New(target, options) //nolint:contextcheck // It outlives ctx.
	if err != nil {
		return err
	}
	defer podlink.Close()
	chat.agent, err = podlink.NewAgent(names.Namespace, names.Service, client.AgentOptions{
		PodName:      o.Name,
		Registrar:    registrar,
		UID:          client.Field("room"),
		TTL:          o.TTL,
		DrainTimeout: o.Linger + drainReserve,
		OnDrain:      func(ctx context.Context) { chat.handOver(ctx, o.Linger) },
		OnLost:       chat.lost,
		Logger:       o.Logger,
	})
	if err != nil {
		return err
	}
	server := kgrpc.NewServer(chat.agent.ServerOptions(kgrpc.Address(o.Addr), kgrpc.Middleware(recovery.Recovery()))...)
	chatv1.RegisterChatServiceServer(server, chat)
	return kratos.New(chat.agent.AppOptions([]transport.Server{server},
		kratos.Context(ctx), kratos.Name(names.Service), kratos.Logger(o.Logger))...).Run()
}
