package client

import (
	"context"
	"crypto/tls"
	"testing"
	"time"

	"github.com/go-kratos/kratos/v2/middleware"
	"github.com/go-kratos/kratos/v2/transport"
	kgrpc "github.com/go-kratos/kratos/v2/transport/grpc"
	khttp "github.com/go-kratos/kratos/v2/transport/http"
	"github.com/stretchr/testify/require"

	v1 "podlink/api/podlink/v1"
)

// kratosServer is a server of Kratos with podlink's API, for what podlink can't be asked: what reaches it, and when. Each
// call goes to arrived, and is answered by answer.
type kratosServer struct {
	v1.UnimplementedLinkServiceServer

	addr   string
	answer func(ctx context.Context) error
	// arrived has the headers of each call, of those that the tests ask for.
	arrived chan transport.Header
}

// served starts a server until the test ends. Without secured it has no TLS.
func served(t *testing.T, http bool, secured *tls.Config, answer func(ctx context.Context) error, with ...middleware.Middleware) *kratosServer {
	t.Helper()
	s := &kratosServer{answer: answer, arrived: make(chan transport.Header, 100)}
	var server interface {
		transport.Server
		transport.Endpointer
	}
	if http {
		options := []khttp.ServerOption{khttp.Address("127.0.0.1:0"), khttp.Timeout(0), khttp.Middleware(with...)}
		if secured != nil {
			options = append(options, khttp.TLSConfig(secured))
		}
		made := khttp.NewServer(options...)
		v1.RegisterLinkServiceHTTPServer(made, s)
		server = made
	} else {
		options := []kgrpc.ServerOption{kgrpc.Address("127.0.0.1:0"), kgrpc.Timeout(0), kgrpc.Middleware(with...)}
		if secured != nil {
			options = append(options, kgrpc.TLSConfig(secured))
		}
		made := kgrpc.NewServer(options...)
		v1.RegisterLinkServiceServer(made, s)
		server = made
	}
	endpoint, err := server.Endpoint()
	require.NoError(t, err)
	s.addr = endpoint.Host
	ended := make(chan error, 1)
	go func() { ended <- server.Start(context.Background()) }()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		require.NoError(t, server.Stop(ctx))
		require.NoError(t, <-ended)
	})
	return s
}

func (s *kratosServer) take(ctx context.Context) error {
	t, _ := transport.FromServerContext(ctx)
	s.arrived <- t.RequestHeader()
	return s.answer(ctx)
}

// GetLinkedPod implements v1.LinkServiceServer.
func (s *kratosServer) GetLinkedPod(ctx context.Context, r *v1.GetLinkedPodRequest) (*v1.GetLinkedPodReply, error) {
	return &v1.GetLinkedPodReply{Link: &v1.Link{Uid: r.GetUid()}}, s.take(ctx)
}

// SetLinkedPod implements v1.LinkServiceServer.
func (s *kratosServer) SetLinkedPod(ctx context.Context, r *v1.SetLinkedPodRequest) (*v1.SetLinkedPodReply, error) {
	return &v1.SetLinkedPodReply{Link: &v1.Link{Uid: r.GetUid()}}, s.take(ctx)
}

// hangs is the answer of a server that does not answer.
func hangs(ctx context.Context) error {
	<-ctx.Done()
	return ctx.Err()
}
