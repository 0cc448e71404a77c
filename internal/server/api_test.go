package server

import (
	"slices"
	"testing"

	khttp "github.com/go-kratos/kratos/v2/transport/http"
	"github.com/stretchr/testify/require"
	"google.golang.org/genproto/googleapis/api/annotations"
	"google.golang.org/protobuf/proto"

	v1 "podlink/api/podlink/v1"
)

// TestAPIHasEveryService: every service of the proto package podlink.v1 is served.
func TestAPIHasEveryService(t *testing.T) {
	var served, described []string
	for _, svc := range NewAPI(nil, nil, nil, nil) {
		served = append(served, svc.name)
	}
	for _, service := range v1.Services() {
		described = append(described, string(service.FullName()))
	}
	slices.Sort(served)
	require.Equal(t, described, served, "add the missing service to NewAPI")
	require.Len(t, described, 4)
}

// TestEveryServiceIsRegistered: by name on gRPC, and with a route for each binding of a method on HTTP.
func TestEveryServiceIsRegistered(t *testing.T) {
	p := newParts(t)
	overGRPC, stop := NewGRPCServer(p.config, p.api(), p.chain, healthyStore{}, p.drain, ListenerTLS{})
	t.Cleanup(stop)
	routes, bindings := 0, 0
	require.NoError(t, NewHTTPServer(p.config, p.api(), p.chain, p.drain, p.logger, ListenerTLS{}).WalkRoute(func(khttp.RouteInfo) error {
		routes++
		return nil
	}))
	for _, method := range v1.Methods() {
		require.Contains(t, overGRPC.GetServiceInfo(), string(method.Parent().FullName()))
		rule := proto.GetExtension(method.Options(), annotations.E_Http).(*annotations.HttpRule)
		bindings += 1 + len(rule.GetAdditionalBindings())
	}
	require.Equal(t, bindings, routes)
}
