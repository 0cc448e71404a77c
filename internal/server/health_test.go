package server

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	v1 "podlink/api/podlink/v1"
)

const (
	serving    = grpc_health_v1.HealthCheckResponse_SERVING
	notServing = grpc_health_v1.HealthCheckResponse_NOT_SERVING
)

// switchedStore is a store that can be taken down.
type switchedStore struct {
	down atomic.Bool
}

// Last implements Checker.
func (s *switchedStore) Last(context.Context) error {
	if s.down.Load() {
		return errors.New("the store is down")
	}
	return nil
}

// healthNames are the names that gRPC's health service must know: the whole server, and every service.
func healthNames() []string {
	names := []string{""}
	for _, service := range v1.Services() {
		names = append(names, string(service.FullName()))
	}
	return names
}

// TestHealthIsReadiness: for every name, checks and watches say what /readyz says.
func TestHealthIsReadiness(t *testing.T) {
	w := serveObserved(t)
	client, ctx := grpc_health_v1.NewHealthClient(w.conn), t.Context()
	watches := make(map[string]grpc_health_v1.Health_WatchClient)
	require.Len(t, healthNames(), 5)
	for _, name := range healthNames() {
		var err error
		watches[name], err = client.Watch(ctx, &grpc_health_v1.HealthCheckRequest{Service: name})
		require.NoError(t, err)
	}
	expect := func(want grpc_health_v1.HealthCheckResponse_ServingStatus, when string) {
		t.Helper()
		for name, watch := range watches {
			checked, err := client.Check(ctx, &grpc_health_v1.HealthCheckRequest{Service: name})
			require.NoError(t, err)
			require.Equal(t, want, checked.GetStatus(), "%s: check of %q", when, name)
			seen, err := watch.Recv()
			require.NoError(t, err)
			require.Equal(t, want, seen.GetStatus(), "%s: watch of %q", when, name)
		}
		list, err := client.List(ctx, new(grpc_health_v1.HealthListRequest))
		require.NoError(t, err)
		require.Len(t, list.GetStatuses(), len(watches))
		for name, listed := range list.GetStatuses() {
			require.Contains(t, watches, name)
			require.Equal(t, want, listed.GetStatus(), "%s: list of %q", when, name)
		}
	}
	expect(serving, "at first")
	w.store.down.Store(true)
	expect(notServing, "without a store")
	w.store.down.Store(false)
	expect(serving, "with the store again")
	go func() { _ = w.drain.Run(ctx) }()
	<-w.drain.Started()
	expect(notServing, "while podlink drains")
	for name, watch := range watches {
		_, err := watch.Recv()
		require.Equal(t, codes.Canceled, status.Code(err), name)
	}
	late, err := client.Watch(ctx, new(grpc_health_v1.HealthCheckRequest))
	require.NoError(t, err)
	seen, err := late.Recv()
	require.NoError(t, err)
	require.Equal(t, notServing, seen.GetStatus())
}

// TestHealthOfUnknownServices: as gRPC's health protocol says.
func TestHealthOfUnknownServices(t *testing.T) {
	w := serveObserved(t)
	client := grpc_health_v1.NewHealthClient(w.conn)
	for _, name := range []string{"x", "podlink.v1", "podlink.v1.linkservice", "/podlink.v1.LinkService", "grpc.health.v1.Health"} {
		request := &grpc_health_v1.HealthCheckRequest{Service: name}
		_, err := client.Check(t.Context(), request)
		require.Equal(t, codes.NotFound, status.Code(err), name)
		watch, err := client.Watch(t.Context(), request)
		require.NoError(t, err)
		seen, err := watch.Recv()
		require.NoError(t, err)
		require.Equal(t, grpc_health_v1.HealthCheckResponse_SERVICE_UNKNOWN, seen.GetStatus(), name)
	}
}

// TestWriteTimeoutFollowsTheRequest: a request that takes its whole time, after a body that did, is still answered.
func TestWriteTimeoutFollowsTheRequest(t *testing.T) {
	for _, timeout := range []time.Duration{time.Millisecond, time.Second, 20 * time.Second, time.Minute} {
		p := newParts(t)
		p.config.Http.Timeout = durationpb.New(timeout)
		server := NewHTTPServer(p.config, p.api(), p.chain, p.drain, p.logger, ListenerTLS{})
		require.Equal(t, readTimeout+timeout+writeTimeout, server.WriteTimeout)
		require.Equal(t, readTimeout, server.ReadTimeout)
		require.Equal(t, 620*time.Second, server.IdleTimeout, "server.http.idle_timeout")
	}
	metrics, err := NewMetrics(nil)
	require.NoError(t, err)
	p := newParts(t)
	admin := NewAdminServer(AdminOptions{
		Server: p.config, Connections: NewConnections(p.config, nil), Store: healthyStore{}, Drain: p.drain, Metrics: metrics, Level: p.level,
		Logger: p.logger,
	})
	require.Greater(t, admin.server.WriteTimeout, readTimeout+adminTimeout)
}
