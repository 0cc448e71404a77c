package client

import (
	"github.com/go-kratos/kratos/v2/log"
	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
)

// healthService is the pod's gRPC health service, for probes of Kubernetes and for clients that watch it, as those of Kratos do.
// The pod is SERVING from its Ready until its drain has ended: clients that watch would leave the sessions that go on meanwhile.
type healthService struct{ server *health.Server }

func newHealthService() *healthService {
	h := &healthService{health.NewServer()}
	h.server.SetServingStatus("", healthv1.HealthCheckResponse_NOT_SERVING)
	return h
}

// healthRegistrar is a gRPC server.
type healthRegistrar interface {
	grpc.ServiceRegistrar
	GetServiceInfo() map[string]grpc.ServiceInfo
}

// register adds the service to a server, unless that has one already: gRPC would end the process.
func (h *healthService) register(with healthRegistrar, helper *log.Helper) {
	if _, has := with.GetServiceInfo()[healthv1.Health_ServiceDesc.ServiceName]; has {
		helper.Warn("the gRPC server has a health service already, which does not say whether podlink uses the pod: " +
			"make the server with Agent.ServerOptions")
		return
	}
	healthv1.RegisterHealthServer(with, h.server)
}

// serve makes the pod SERVING, unless it has ended.
func (h *healthService) serve() { h.server.SetServingStatus("", healthv1.HealthCheckResponse_SERVING) }

// end makes the pod NOT_SERVING for good.
func (h *healthService) end() { h.server.Shutdown() }
