package app

import (
	"podlink/internal/biz"
	"podlink/internal/conf"
	"podlink/internal/data"
	"podlink/internal/rdb"
	"podlink/internal/registration"
	"podlink/internal/server"
	"podlink/internal/telemetry"
)

func limits(c *conf.Bootstrap) biz.Limits {
	return biz.Limits{MaxBatch: int(c.GetLimits().GetMaxBatch())}
}

func podTTL(c *conf.Bootstrap) biz.TTL { return biz.TTL(c.GetState().GetPodTtl().GetSeconds()) }

// collectors returns the metrics of the other layers.
func collectors(
	domain *telemetry.Domain, store *rdb.Metrics, links *data.LinkMetrics, registrar *registration.Registrar,
	queue *telemetry.LogQueue,
) server.Collectors {
	return server.Collectors{domain, store, links, registrar, queue}
}
