package server

import (
	"context"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/go-kratos/kratos/v2/transport"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	v1 "podlink/api/podlink/v1"
	"podlink/internal/biz"
	"podlink/internal/service"
	"podlink/internal/telemetry"
)

// slowStore answers a Get when it is released.
type slowStore struct {
	biz.LinkRepo

	asked, release chan struct{}
}

func (s slowStore) Get(ctx context.Context, key biz.LinkKey) (biz.Link, error) {
	s.asked <- struct{}{}
	<-s.release
	return memory{}.Get(ctx, key)
}

// TestInFlight: of the calls at once, those above the maximum are refused on both transports, at once and repeatably. The others
// are served, and so is the next call once one of them has ended.
func TestInFlight(t *testing.T) {
	p, store := newParts(t), slowStore{asked: make(chan struct{}), release: make(chan struct{})}
	p.chain.calls.most = 2
	domain := telemetry.NewDomain()
	p.links = service.NewLinkService(biz.NewLinkUsecase(store, biz.NewPodViews(nil, domain), biz.Limits{}, domain), service.NopProblems{})
	handler, conn := p.http(), p.dial(t)
	ask := func() *httptest.ResponseRecorder {
		reply := httptest.NewRecorder()
		handler.ServeHTTP(reply, httptest.NewRequestWithContext(context.WithoutCancel(t.Context()), http.MethodGet, linkPath, http.NoBody))
		return reply
	}
	replies := make(chan *httptest.ResponseRecorder)
	for range 2 {
		go func() { replies <- ask() }()
		<-store.asked
	}
	refused := ask()
	require.Equal(t, http.StatusTooManyRequests, refused.Code)
	require.Equal(t, "1", refused.Header().Get("Retry-After"))
	require.Contains(t, refused.Body.String(), `"reason":"RATE_LIMITED"`)
	require.Contains(t, refused.Body.String(), `"retry_after_ms":"100"`)
	_, err := v1.NewLinkServiceClient(conn).GetLinkedPod(t.Context(), &v1.GetLinkedPodRequest{Namespace: "n", Uid: "u", Service: "s"})
	require.Equal(t, codes.ResourceExhausted, status.Code(err))
	require.True(t, v1.IsRateLimited(err), err)
	close(store.release)
	for range 2 {
		require.Equal(t, http.StatusOK, (<-replies).Code)
	}
	require.Zero(t, p.chain.calls.now.Load())
	go func() { replies <- ask() }()
	<-store.asked
	require.Equal(t, http.StatusOK, (<-replies).Code)
}

// TestInFlightEnds: a call that panics has ended too.
func TestInFlightEnds(t *testing.T) {
	p := newParts(t)
	served := p.chain.Unary(func(context.Context, any) (any, error) { panic("x") })
	p.chain.calls.most = 1
	for range 3 {
		_, err := served(transport.NewServerContext(t.Context(), unrouted{new(http.Request), make(http.Header)}), nil)
		require.True(t, v1.IsInternal(err))
	}
	require.Zero(t, p.chain.calls.now.Load())
}
