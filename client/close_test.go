package client

import (
	"context"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"google.golang.org/grpc"

	v1 "podlink/api/podlink/v1"
)

// countingListener counts the connections that it accepts.
type countingListener struct {
	net.Listener
	accepted atomic.Int32
}

func (l *countingListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err == nil {
		l.accepted.Add(1)
	}
	return conn, err
}

// stateServer answers reports, and holds up everything else.
type stateServer struct {
	v1.UnimplementedStateServiceServer
	v1.UnimplementedLinkServiceServer
	held chan struct{} // one for each call that is held up
}

func (stateServer) SetServiceState(context.Context, *v1.SetServiceStateRequest) (*v1.SetServiceStateReply, error) {
	return &v1.SetServiceStateReply{Applied: true}, nil
}

func (s stateServer) GetServiceState(ctx context.Context, _ *v1.GetServiceStateRequest) (*v1.GetServiceStateReply, error) {
	s.held <- struct{}{}
	return nil, hangs(ctx)
}

func (s stateServer) GetLinkedPod(ctx context.Context, _ *v1.GetLinkedPodRequest) (*v1.GetLinkedPodReply, error) {
	s.held <- struct{}{}
	return nil, hangs(ctx)
}

func (s stateServer) ComputeLinkedPod(ctx context.Context, _ *v1.ComputeLinkedPodRequest) (*v1.ComputeLinkedPodReply, error) {
	s.held <- struct{}{}
	return nil, hangs(ctx)
}

// newStateServer starts one over gRPC.
func newStateServer(t *testing.T) (s stateServer, l *countingListener) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	l = &countingListener{Listener: listener}
	s = stateServer{held: make(chan struct{}, 100)}
	server := grpc.NewServer()
	v1.RegisterStateServiceServer(server, s)
	v1.RegisterLinkServiceServer(server, s)
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(l) }()
	t.Cleanup(func() {
		server.Stop()
		require.NoError(t, <-ended)
	})
	return s, l
}

// TestReportsHaveTheirOwnConnection, which is made with the first report.
func TestReportsHaveTheirOwnConnection(t *testing.T) {
	s, l := newStateServer(t)
	c := dialed(t, l.Addr().String(), Options{Timeout: time.Hour})
	calls, leave := context.WithCancel(t.Context())
	var inFlight sync.WaitGroup
	for range 10 {
		inFlight.Go(func() { _, _ = c.GetServiceState(calls, &v1.GetServiceStateRequest{}) })
		<-s.held
	}
	require.EqualValues(t, 1, l.accepted.Load())
	for range 3 {
		_, err := c.reports.SetServiceState(t.Context(), &v1.SetServiceStateRequest{Namespace: "game", Service: "room"})
		require.NoError(t, err)
		require.EqualValues(t, 2, l.accepted.Load())
	}
	leave()
	inFlight.Wait()
}

// TestCloseEndsAll: the calls, the reports, the streams and the questions of a router that are in flight, and what is cached.
func TestCloseEndsAll(t *testing.T) {
	s, l := newStateServer(t)
	before := goleak.IgnoreCurrent()
	c, err := New(l.Addr().String(), Options{Timeout: time.Hour})
	require.NoError(t, err)
	router, err := c.NewRouter("game", "room", RouterOptions{})
	require.NoError(t, err)
	calls := []func() error{
		func() error { _, err := readLink(t.Context(), c); return err },
		func() error {
			_, err := c.reports.GetServiceState(t.Context(), &v1.GetServiceStateRequest{})
			return err
		},
		func() error { _, err := router.Route(t.Context(), "alice"); return err },
	}
	errs := make(chan error, len(calls))
	for _, call := range calls {
		go func() { errs <- call() }()
	}
	for range calls {
		<-s.held
	}
	require.NoError(t, c.Close())
	for range calls {
		require.ErrorIs(t, <-errs, ErrUnavailable)
	}
	goleak.VerifyNone(t, before)
	require.NoError(t, c.Close(), "a second time")
	_, err = c.reports.SetServiceState(t.Context(), &v1.SetServiceStateRequest{})
	require.ErrorIs(t, err, ErrUnavailable)
}
