package demo

import (
	"context"
	"time"

	kgrpc "github.com/go-kratos/kratos/v2/transport/grpc"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"

	"podlink/client"
	chatv1 "podlink/examples/chat/api/chat/v1"
	"podlink/examples/chat/internal/pod"
)

// startCaller dials the chat through podlink's router: this is all the code that a caller needs.
func (d *demo) startCaller(ctx context.Context) error {
	router, err := d.client.NewRouter(pod.Namespace, pod.Service, client.RouterOptions{
		UID:        client.Field("room"),
		Idempotent: []string{chatv1.ChatService_Say_FullMethodName, chatv1.ChatService_Leave_FullMethodName},
		RetryTimeout:   2 * time.Second,
		LinkTTL:   10 * time.Second,
	})
	if err != nil {
		return err
	}
	conn, err := kgrpc.DialInsecure(ctx,
		kgrpc.WithEndpoint("discovery:///"+pod.Service), kgrpc.WithDiscovery(d.discovery), kgrpc.WithSubset(0),
		kgrpc.WithMiddleware(router.Middleware()), kgrpc.WithNodeFilter(router.NodeFilter()),
		kgrpc.WithTimeout(sayTimeout), kgrpc.WithPrintDiscoveryDebugLog(false),
		// Reconnect fast, so that a restarted pod at the same address is called again soon.
		kgrpc.WithOptions(grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: 100 * time.Millisecond, Multiplier: 1.5, Jitter: .2, MaxDelay: time.Second},
			MinConnectTimeout: time.Second,
		})),
	)
	if err != nil {
		return err
	}
	d.onClose(func() { _ = conn.Close() })
	d.talk = newTalk(chatv1.NewChatServiceClient(conn), d.client, d.Rooms, d.Every)
	d.screen = newScreen(d)
	return nil
}
