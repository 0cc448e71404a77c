package app

import (
	"context"

	"github.com/go-kratos/kratos/v2/log"

	"podlink/internal/audit"
	"podlink/internal/biz"
	"podlink/internal/certs"
	"podlink/internal/conf"
	"podlink/internal/data"
	"podlink/internal/rdb"
	"podlink/internal/registration"
	"podlink/internal/server"
	"podlink/internal/telemetry"
)

// newReloader returns what keeps the TLS files up to date, and a function that ends its reads.
func newReloader(audited *audit.Log, logger log.Logger) (*certs.Reloader, func()) {
	files := certs.New(certs.Options{Log: log.NewHelper(log.With(logger, "module", "tls")), Reloaded: auditReloads(audited)})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = files.Run(ctx) // It does not fail.
	}()
	return files, func() {
		cancel()
		<-done
	}
}

func limits(c *conf.Bootstrap) biz.Limits {
	return biz.Limits{MaxBatch: int(c.GetLimits().GetMaxBatch())}
}

func linkLimits(c *conf.Bootstrap) data.LinkLimits {
	return data.LinkLimits{MaxServices: int(c.GetLimits().GetMaxServices())}
}

func podLimits(c *conf.Bootstrap) data.PodLimits {
	return data.PodLimits{
		MaxPods: int(c.GetLimits().GetMaxPods()), ForgetAfter: c.GetState().GetForgetAfter().AsDuration(),
	}
}

func primaries(runner *rdb.Runner) data.Primaries { return runner.Primaries }

func podTTL(c *conf.Bootstrap) biz.TTL { return biz.TTL(c.GetState().GetPodTtl().GetSeconds()) }

// podViews returns the cache of the pods, and a function that ends its reads.
func podViews(pods biz.PodRepo, observer biz.Observer) (*biz.PodViews, func()) {
	views := biz.NewPodViews(pods, observer)
	return views, views.Stop
}

// collectors returns the metrics of the other layers.
func collectors(
	domain *telemetry.Domain, store *rdb.Metrics, links *data.LinkMetrics, registrar *registration.Registrar,
	queue *telemetry.LogQueue, doors *server.DoorMetrics, audited *audit.Log, fleet *telemetry.Fleet, jobs *telemetry.Jobs,
) server.Collectors {
	return server.Collectors{domain, store, links, registrar, queue, doors, audited, fleet, jobs}
}
