//go:build wireinject

package app

import (
	"github.com/go-kratos/kratos/v2"
	"github.com/go-kratos/kratos/v2/log"
	"github.com/google/wire"

	"podlink/internal/audit"
	"podlink/internal/biz"
	"podlink/internal/conf"
	"podlink/internal/data"
	"podlink/internal/rdb"
	"podlink/internal/registration"
	"podlink/internal/server"
	"podlink/internal/service"
	"podlink/internal/telemetry"
)

// New assembles podlink: server -> service -> biz -> data. The app listens from Run until Stop or a signal. Call the returned
// function after Run, or instead of it: it closes the store's connections and flushes spans and log lines.
func New(*conf.Bootstrap, *telemetry.LogLevel, *telemetry.LogQueue, *audit.Log, log.Logger) (*kratos.App, func(), error) {
	panic(wire.Build(
		server.ProviderSet, service.ProviderSet,
		// The layers below know nothing of Wire.
		podViews, biz.NewLinkUsecase, biz.NewPodUsecase, biz.NewWorkloadUsecase, newFleetUsecase, newWatches, newExports,
		newJobUsecase, newRunner,
		newRepos, newFeed, notedLinks, notedPods, data.NewWorkloadRepo, data.NewLinkMetrics,
		telemetry.ProviderSet, registration.ProviderSet,
		wire.FieldsOf(new(*conf.Bootstrap), "Server", "Data", "Log", "Trace", "Registry", "Fleet"), limits, podTTL, primaries,
		newReloader, OpenStore, Keyspace, wire.FieldsOf(new(*rdb.DB), "Runner", "Health", "Metrics"),
		wire.Bind(new(server.Checker), new(*rdb.Health)), collectors, newDoors, access, newChores, newBackground, newApp,
	))
}
