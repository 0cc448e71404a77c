// Package caller calls the chat. Each call goes to the pod that holds its room: copy this package to call a stateful service of
// your own.
package caller

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/go-kratos/kratos/v2/registry"
	kgrpc "github.com/go-kratos/kratos/v2/transport/grpc"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"

	"podlink/client"
	chatv1 "podlink/examples/chat/api/chat/v1"
	"podlink/examples/chat/names"
)

const (
	// Timeout bounds a call, with what the router does for it.
	Timeout = 3 * time.Second
	// redialPause is the longest pause before a pod that could not be reached is dialed again.
	redialPause = time.Second
)

// Caller calls the chat. It is safe for concurrent use, and a process needs only one.
type Caller struct {
	chatv1.ChatServiceClient
	podlink *client.Client
	conn    *grpc.ClientConn
}

// New returns a caller. podlink is at the target, and discovery has the chat's pods.
func New(ctx context.Context, target string, o client.Options, discovery registry.Discovery) (*Caller, error) {
	podlink, err := client.New(target, o) //nolint:contextcheck // It outlives ctx.
	if err != nil {
		return nil, err
	}
	conn, err := dial(ctx, podlink, discovery)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("dial the chat: %w", err), podlink.Close())
	}
	return &Caller{chatv1.NewChatServiceClient(conn), podlink, conn}, nil
}

func dial(ctx context.Context, podlink *client.Client, discovery registry.Discovery) (*grpc.ClientConn, error) {
	router, err := podlink.NewRouter(names.Namespace, names.Service, client.RouterOptions{
		UID: client.Field("room"),
		// A message has an id, and leaving twice is leaving: both may be repeated when their answer was lost.
		Idempotent:   []string{chatv1.ChatService_Say_FullMethodName, chatv1.ChatService_Leave_FullMethodName},
		RetryTimeout: 2 * time.Second,
		LinkTTL:      10 * time.Second,
	})
	if err != nil {
		return nil, err
	}
	return kgrpc.DialInsecure(ctx,
		kgrpc.WithEndpoint("discovery:///"+names.Service), kgrpc.WithDiscovery(discovery),
		kgrpc.WithMiddleware(router.Middleware()), kgrpc.WithNodeFilter(router.NodeFilter()),
		kgrpc.WithSubset(0), // All pods: Kratos shows a client only 25 otherwise.
		kgrpc.WithTimeout(Timeout), kgrpc.WithPrintDiscoveryDebugLog(false),
		// gRPC would let the pause grow to two minutes: a pod that has restarted at its address is called again soon.
		kgrpc.WithOptions(grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: redialPause / 10, Multiplier: 1.5, Jitter: .2, MaxDelay: redialPause},
			MinConnectTimeout: redialPause,
		})),
	)
}

// Close ends the connections.
func (c *Caller) Close() error { return errors.Join(c.conn.Close(), c.podlink.Close()) }
