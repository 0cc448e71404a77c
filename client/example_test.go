package client_test

import (
	"context"
	"time"

	"github.com/go-kratos/kratos/v2"
	"github.com/go-kratos/kratos/v2/registry"
	"github.com/go-kratos/kratos/v2/transport"
	kgrpc "github.com/go-kratos/kratos/v2/transport/grpc"
	"google.golang.org/grpc"

	"podlink/client"
)

// What a service has already: its discovery, and its server's registration.
var (
	discovery registry.Discovery
	registrar registry.Registrar
)

func registerChat(grpc.ServiceRegistrar) {}

// dialChat gives a Kratos app a connection whose calls go to the pods that hold their users.
func dialChat() (*grpc.ClientConn, error) {
	podlink, err := client.New("podlink:9000", client.Options{})
	if err != nil {
		return nil, err
	}
	router, err := podlink.NewRouter("prod", "chat", client.RouterOptions{UID: client.Field("uid")})
	if err != nil {
		return nil, err
	}
	return kgrpc.DialInsecure(context.Background(), kgrpc.WithEndpoint("discovery:///chat"), kgrpc.WithDiscovery(discovery),
		kgrpc.WithMiddleware(router.Middleware()), kgrpc.WithNodeFilter(router.NodeFilter()), kgrpc.WithSubset(0))
}

// newChat gives a pod its agent: it reports the pod, serves only the pod's users, and empties the pod before it stops.
func newChat() (*kratos.App, error) {
	podlink, err := client.New("podlink:9000", client.Options{})
	if err != nil {
		return nil, err
	}
	agent, err := podlink.NewAgent("prod", "chat", client.AgentOptions{UID: client.Field("uid"), Registrar: registrar})
	if err != nil {
		return nil, err
	}
	server := kgrpc.NewServer(agent.ServerOptions(kgrpc.Address(":9000"))...)
	registerChat(server)
	return kratos.New(agent.AppOptions([]transport.Server{server}, kratos.Name("chat"))...), nil
}

func Example_caller() {
	chat, err := dialChat()
	if err != nil {
		return
	}
	defer chat.Close()
	// pb.NewChatClient(chat).Say(ctx, &pb.SayRequest{Uid: "user:42", Text: "hello"}) goes to the pod of user:42.
}

func Example_pod() {
	chat, err := newChat()
	if err != nil {
		return
	}
	_ = chat.Run()
}

// With a static token and, where podlink asks for it, a client certificate (mTLS). All four files may be replaced at any time.
func ExampleNew_tokenFile() {
	podlink, err := client.New("podlink.example:9000", client.Options{
		CAFile:    "/etc/chat/podlink-ca.crt", // signs podlink's certificate
		CertFile:  "/etc/chat/chat.crt",
		KeyFile:   "/etc/chat/chat.key",
		TokenFile: "/etc/chat/podlink.token",
	})
	if err != nil {
		return
	}
	defer podlink.Close()
}

// In Kubernetes, with the service account's token of this pod: it is mounted at client.DefaultTokenFile.
func ExampleNew_kubernetes() {
	podlink, err := client.New("podlink.podlink.svc:9000", client.Options{
		CAFile:  "/var/run/secrets/podlink/ca.crt",
		NoProxy: true,
	})
	if err != nil {
		return
	}
	defer podlink.Close()
}

// A handler of the pod holds a user's state while the session lasts. Storage refuses what has an older epoch.
func ExampleAgent_StartSession() {
	var agent *client.Agent
	var load func(ctx context.Context, uid string, epoch int64) error
	var save func(ctx context.Context, uid string, epoch int64) error

	var session *client.Session
	_ = func(ctx context.Context, uid string) (err error) { // The player joins.
		session, err = agent.StartSession(ctx, uid)
		if err != nil {
			return err
		}
		return load(ctx, uid, session.Epoch())
	}
	_ = func(ctx context.Context, uid string) error { // The player does something. The epoch may have grown.
		return save(ctx, uid, session.Epoch())
	}
	_ = func(ctx context.Context) { // The player leaves, and may be back within a minute.
		session.End(ctx, time.Minute)
	}
}
