//go:build wireinject

package main

import (
	"github.com/go-kratos/kratos/v2"
	"github.com/go-kratos/kratos/v2/log"
	"github.com/google/wire"

	"podlink/internal/app"
	"podlink/internal/biz"
	"podlink/internal/conf"
	"podlink/internal/data"
	"podlink/internal/rdb"
	"podlink/internal/registration"
	"podlink/internal/server"
	"podlink/internal/service"
	"podlink/internal/telemetry"
)

// wireApp assembles server -> service -> biz -> data.
func wireApp(*conf.Bootstrap, *telemetry.LogLevel, log.Logger) (*kratos.App, func(), error) {
	panic(wire.Build(
		server.ProviderSet, service.ProviderSet, biz.ProviderSet, data.ProviderSet,
		telemetry.ProviderSet, registration.ProviderSet,
		wire.FieldsOf(new(*conf.Bootstrap), "Server", "Data", "Log", "Trace", "Registry"), limits, podTTL,
		app.OpenStore, app.Keyspace, wire.FieldsOf(new(*rdb.DB), "Runner", "Health", "Metrics"),
		wire.Bind(new(server.Checker), new(*rdb.Health)), collectors, newApp,
	))
}
