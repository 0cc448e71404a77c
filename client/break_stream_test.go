package client

import (
	"context"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
)

// silentStream is a stream on which nothing arrives. gRPC forbids two RecvMsg at once.
type silentStream struct {
	grpc.ServerStream
	ctx            context.Context //nolint:containedctx // As in a grpc.ServerStream.
	receiving, max atomic.Int32
}

func (s *silentStream) Context() context.Context { return s.ctx }

func (s *silentStream) RecvMsg(any) error {
	s.max.Store(max(s.max.Load(), s.receiving.Add(1)))
	defer s.receiving.Add(-1)
	<-s.ctx.Done()
	return s.ctx.Err()
}

// TestBreakReceiveAfterTheEnd: a handler that receives again after the guard has ended its stream.
func TestBreakReceiveAfterTheEnd(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	under := &silentStream{ctx: ctx}
	of, revoke := context.WithCancelCause(ctx)
	s := &guardedStream{ServerStream: under, guard: &guard{}, ctx: &userContext{Context: of}, revoke: revoke}
	time.AfterFunc(50*time.Millisecond, func() { revoke(ErrWrongPod) })
	before := runtime.NumGoroutine()
	for range 100 {
		require.ErrorIs(t, s.RecvMsg(nil), ErrWrongPod)
	}
	time.Sleep(50 * time.Millisecond)
	require.LessOrEqual(t, under.max.Load(), int32(1), "RecvMsg at once on one gRPC stream")
	require.LessOrEqual(t, runtime.NumGoroutine(), before+2)
}

// TestBreakRouterOfClosedClient: a router or agent that is made after Close.
func TestBreakRouterOfClosedClient(t *testing.T) {
	c := newClient(new(countingConn), new(countingConn), DefaultTimeout, proof{}, func() error { return nil })
	require.NoError(t, c.Close())
	before := runtime.NumGoroutine()
	for range 20 {
		_, err := c.NewRouter(testNamespace, testService, RouterOptions{})
		require.NoError(t, err)
	}
	time.Sleep(200 * time.Millisecond)
	require.LessOrEqual(t, runtime.NumGoroutine(), before+5)
}
