package server

import (
	"context"
	"time"

	"github.com/go-kratos/kratos/v2/transport"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	v1 "podlink/api/podlink/v1"
)

// watchInterval is the interval at which health watches look for a change.
const watchInterval = time.Second

// healthServer is gRPC's health service. It gives the answer of /readyz for the whole server, whose name is empty, and for
// each service of the API: they share one store. Kratos' own health service reports SERVING whatever the store does.
type healthServer struct {
	grpc_health_v1.UnimplementedHealthServer

	ready *readiness
	chain *Chain
	names map[string]bool
}

func newHealthServer(store Checker, drain *Drain, chain *Chain) *healthServer {
	names := map[string]bool{"": true}
	for _, service := range v1.Services() {
		names[string(service.FullName())] = true
	}
	return &healthServer{ready: &readiness{store: store, drain: drain, access: chain.access}, chain: chain, names: names}
}

func servingStatus(reason string) grpc_health_v1.HealthCheckResponse_ServingStatus {
	if reason != "" {
		return grpc_health_v1.HealthCheckResponse_NOT_SERVING
	}
	return grpc_health_v1.HealthCheckResponse_SERVING
}

// Check implements grpc_health_v1.HealthServer.
func (h *healthServer) Check(
	ctx context.Context, request *grpc_health_v1.HealthCheckRequest,
) (*grpc_health_v1.HealthCheckResponse, error) {
	if !h.names[request.GetService()] {
		return nil, status.Error(codes.NotFound, "unknown service")
	}
	return &grpc_health_v1.HealthCheckResponse{Status: servingStatus(h.ready.reason(ctx))}, nil
}

// List implements grpc_health_v1.HealthServer. Only Check is open to callers that are not known.
func (h *healthServer) List(
	ctx context.Context, _ *grpc_health_v1.HealthListRequest,
) (*grpc_health_v1.HealthListResponse, error) {
	if err := h.chain.admitList(ctx); err != nil {
		return nil, err
	}
	now := servingStatus(h.ready.reason(ctx))
	statuses := make(map[string]*grpc_health_v1.HealthCheckResponse, len(h.names))
	for name := range h.names {
		statuses[name] = &grpc_health_v1.HealthCheckResponse{Status: now}
	}
	return &grpc_health_v1.HealthListResponse{Statuses: statuses}, nil
}

// admitList returns why a List is refused. A refusal passes the chain, as every one does; an answer does not, as those of probes.
func (c *Chain) admitList(ctx context.Context) error {
	known, d := c.access.guarded(ctx, c.access.priceOf(grpc_health_v1.Health_List_FullMethodName))
	if d.err == nil {
		return nil
	}
	t, _ := transport.FromServerContext(ctx) // Kratos always sets it.
	return c.serve(known, t, unaryCall, &messages{}, func(context.Context) error { return d.err })
}

// Watch implements grpc_health_v1.HealthServer. When podlink drains, which ends the stream, the last message is NOT_SERVING.
func (h *healthServer) Watch(
	request *grpc_health_v1.HealthCheckRequest, stream grpc.ServerStreamingServer[grpc_health_v1.HealthCheckResponse],
) error {
	ticker := time.NewTicker(watchInterval)
	defer ticker.Stop()
	sent := grpc_health_v1.HealthCheckResponse_UNKNOWN
	for {
		now := grpc_health_v1.HealthCheckResponse_SERVICE_UNKNOWN
		if h.names[request.GetService()] {
			now = servingStatus(h.ready.reason(stream.Context()))
		}
		if now != sent {
			if err := stream.Send(&grpc_health_v1.HealthCheckResponse{Status: now}); err != nil {
				return err
			}
			sent = now
		}
		if err := stream.Context().Err(); err != nil {
			return status.FromContextError(err).Err()
		}
		select {
		case <-ticker.C:
		case <-stream.Context().Done():
			if !h.ready.drain.Draining() { // The caller has left.
				return status.FromContextError(stream.Context().Err()).Err()
			}
		}
	}
}
