// Package app wires podlink's layers together. The binary and the API tests call New; benchmarks and tests of single layers call
// OpenStore.
//
// Two things to know before changing anything here. Wire generates wire_gen.go from wire.go (make generate); providers.go has the
// values that Wire can't find by type. And newApp's BeforeStop functions run in order, before the listeners close.
package app

import (
	"github.com/go-kratos/kratos/v2"
	"github.com/go-kratos/kratos/v2/log"
	kgrpc "github.com/go-kratos/kratos/v2/transport/grpc"
	khttp "github.com/go-kratos/kratos/v2/transport/http"

	"podlink/internal/certs"
	"podlink/internal/conf"
	"podlink/internal/rdb"
	"podlink/internal/registration"
	"podlink/internal/server"
	"podlink/internal/version"
)

func newApp(
	c *conf.Server, r *conf.Registry, logger log.Logger, store *rdb.Health, drain *server.Drain, registrar *registration.Registrar,
	connections *server.Connections, http *khttp.Server, grpc *kgrpc.Server, admin *server.AdminServer, beside *background,
	files *certs.Reloader, metrics *server.DoorMetrics,
) (*kratos.App, error) {
	for _, source := range files.Sources() { // All users of files are made.
		metrics.Watch(source)
	}

	endpoints, err := registration.Endpoints(r)
	if err != nil {
		return nil, err
	}
	return kratos.New(
		kratos.Name("podlink"),
		kratos.Version(version.Version),
		kratos.Logger(logger),
		kratos.Server(store, newHTTPListener(c.GetHttp(), connections, http), newGRPCListener(c.GetGrpc(), connections, grpc),
			listener{admin, "server.admin.addr"}, beside),
		kratos.Metadata(conf.Pairs(r.GetMetadata())),
		kratos.Endpoint(endpoints...),
		kratos.Registrar(registrar),
		// Deregister first: connected callers are served until the drain ends.
		kratos.BeforeStop(registrar.Stop),
		kratos.BeforeStop(drain.Run),
		kratos.StopTimeout(c.GetStop().GetTimeout().AsDuration()),
	), nil
}
