// Package pod is one pod of the chat: a Kratos app with podlink's agent and guard.
package pod

import (
	"context"
	"time"

	"github.com/go-kratos/kratos/contrib/registry/etcd/v2"
	"github.com/go-kratos/kratos/v2"
	"github.com/go-kratos/kratos/v2/log"
	"github.com/go-kratos/kratos/v2/middleware/recovery"
	kgrpc "github.com/go-kratos/kratos/v2/transport/grpc"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"podlink/client"
	chatv1 "podlink/examples/chat/api/chat/v1"
)

// What the chat is called, in podlink and in the registry.
const (
	Namespace = "demo"
	Service   = "chat"
)

const (
	// registryTTL is how long a pod that has died is still found.
	registryTTL = 5 * time.Second
	// dialLimit bounds how long etcd may take to let the pod in.
	dialLimit = 3 * time.Second
)

// Options are a pod's settings.
type Options struct {
	Name    string        // as in chat-2
	Addr    string        // host:port to listen on
	Podlink string        // podlink's address; empty: what etcd says
	Etcd    string        // host:port; empty: the pod does not register itself
	Store   string        // host:port of the rooms' store
	TTL     time.Duration // how long a report to podlink counts
	Linger  time.Duration // how long a pod that stops keeps its rooms
	Logger  log.Logger
}

// Run runs the pod until it is told to stop.
func Run(ctx context.Context, o Options) error {
	var (
		settings = []kratos.Option{kratos.Context(ctx), kratos.Name(Service), kratos.Logger(o.Logger)}
		target   = o.Podlink
		reach    client.Options
	)
	if o.Etcd != "" {
		conn, err := clientv3.New(clientv3.Config{Endpoints: []string{o.Etcd}, DialTimeout: dialLimit, Logger: zap.NewNop()})
		if err != nil {
			return err
		}
		defer conn.Close()
		registry := etcd.New(conn, etcd.RegisterTTL(registryTTL))
		settings = append(settings, kratos.Registrar(registry))
		target, reach.Discovery = "discovery:///podlink", registry
	}
	toStore, err := grpc.NewClient(o.Store, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	defer toStore.Close()
	chat := &rooms{store: chatv1.NewStoreServiceClient(toStore), open: map[string]*room{}}

	podlink, err := client.New(target, reach)
	if err != nil {
		return err
	}
	defer podlink.Close()
	chat.agent, err = podlink.NewAgent(Namespace, Service, client.AgentOptions{
		PodName: o.Name,
		UID:     client.Field("room"),
		TTL:     o.TTL,
		OnDrain: func(ctx context.Context) { chat.handOver(ctx, o.Linger) },
		OnLost:  chat.lost,
		Logger:  o.Logger,
	})
	if err != nil {
		return err
	}
	server := kgrpc.NewServer(kgrpc.Address(o.Addr), kgrpc.Middleware(recovery.Recovery(), chat.agent.Guard()))
	chatv1.RegisterChatServiceServer(server, chat)
	return kratos.New(append(settings,
		kratos.Server(server, chat.agent),
		kratos.Metadata(chat.agent.Metadata()),
		kratos.BeforeStop(chat.agent.Drain),
	)...).Run()
}
