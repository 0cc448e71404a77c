package server

import (
	khttp "github.com/go-kratos/kratos/v2/transport/http"
	"google.golang.org/grpc"

	v1 "podlink/api/podlink/v1"
	"podlink/internal/service"
)

// API is the list of services that podlink serves. Metrics, the client and tests need only the names and take them from
// v1.Services; TestAPIHasEveryService compares the two.
type API []apiService

// apiService is a service of the API with a function per listener to register it.
type apiService struct {
	name     string
	overHTTP func(*khttp.Server)
	overGRPC func(grpc.ServiceRegistrar)
}

// NewAPI returns the API with its implementations, the most frequent service first: the HTTP router tries the paths in this order.
func NewAPI(
	fleet *service.FleetService, links *service.LinkService, states *service.StateService, workloads *service.WorkloadService,
) API {
	return API{
		{
			v1.LinkService_ServiceDesc.ServiceName,
			func(srv *khttp.Server) { v1.RegisterLinkServiceHTTPServer(srv, links) },
			func(srv grpc.ServiceRegistrar) { v1.RegisterLinkServiceServer(srv, links) },
		},
		{
			v1.StateService_ServiceDesc.ServiceName,
			func(srv *khttp.Server) { v1.RegisterStateServiceHTTPServer(srv, states) },
			func(srv grpc.ServiceRegistrar) { v1.RegisterStateServiceServer(srv, states) },
		},
		{
			v1.WorkloadService_ServiceDesc.ServiceName,
			func(srv *khttp.Server) { v1.RegisterWorkloadServiceHTTPServer(srv, workloads) },
			func(srv grpc.ServiceRegistrar) { v1.RegisterWorkloadServiceServer(srv, workloads) },
		},
		{
			v1.FleetService_ServiceDesc.ServiceName,
			func(srv *khttp.Server) { v1.RegisterFleetServiceHTTPServer(srv, fleet) },
			func(srv grpc.ServiceRegistrar) { v1.RegisterFleetServiceServer(srv, fleet) },
		},
	}
}
