//go:build wireinject

package main

import (
	"github.com/go-kratos/kratos/v2"
	"github.com/go-kratos/kratos/v2/log"
	"github.com/google/wire"

	"podlink/internal/biz"
	"podlink/internal/conf"
	"podlink/internal/data"
	"podlink/internal/logging"
	"podlink/internal/server"
	"podlink/internal/service"
	"podlink/internal/tracing"
)

// wireApp assembles server -> service -> biz -> data.
func wireApp(
	*conf.Server, *conf.Data, *conf.Log, *conf.Trace, biz.Limits, biz.TTL, *logging.Level, log.Logger,
) (*kratos.App, func(), error) {
	panic(wire.Build(
		server.ProviderSet, service.ProviderSet, biz.ProviderSet, data.ProviderSet,
		tracing.ProviderSet, wire.Bind(new(server.Checker), new(*data.Store)), collectors, newApp,
	))
}
