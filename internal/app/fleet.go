package app

import (
	"context"
	"crypto/rand"

	"podlink/internal/auth"
	"podlink/internal/biz"
	"podlink/internal/conf"
	"podlink/internal/data"
	"podlink/internal/jobs"
	"podlink/internal/rdb"
	"podlink/internal/server"
	"podlink/internal/telemetry"
)

// repos are the repositories of links and pods as the data layer has them. The use cases get those that note in the feed what they
// change; what maintains the feed and the index must not.
type repos struct {
	links biz.LinkRepo
	pods  biz.PodRepo
	fleet *data.Fleet
	jobs  biz.JobRepo
}

func newRepos(
	c *conf.Bootstrap, runner *rdb.Runner, keys data.Keyspace, primaries data.Primaries, metrics *data.LinkMetrics,
) repos {
	return repos{
		links: data.NewLinkRepo(runner, keys, linkLimits(c), metrics),
		pods:  data.NewPodRepo(runner, keys, podLimits(c), primaries),
		fleet: data.NewFleet(runner, keys, data.FleetOptions{FeedMaxAge: c.GetFleet().GetFeedMaxAge().AsDuration()}),
		jobs:  data.NewJobRepo(runner, keys, data.JobLimits{MaxJobs: int(c.GetLimits().GetMaxJobs())}),
	}
}

// newFeed returns the change feed at work, and a function that writes what it has noted and ends it: call it when no request is in
// flight, and before the store is closed.
func newFeed(c *conf.Fleet, r repos, observer *telemetry.Fleet) (*biz.Feed, func()) {
	feed := biz.NewFeed(r.fleet, r.links, biz.FeedOptions{Index: c.GetIndex(), By: callerName, Observer: observer})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		feed.Run(ctx)
	}()
	return feed, func() {
		cancel()
		<-done
	}
}

// callerName returns the job, or the name of the identity that calls; "": not known, as with auth.mode off.
func callerName(ctx context.Context) string {
	if job := biz.ActorOf(ctx); job != "" {
		return job
	}
	if call := auth.From(ctx); call != nil {
		return call.Identity.Name
	}
	return ""
}

// notedLinks and notedPods are the repositories for the use cases.
func notedLinks(r repos, feed *biz.Feed) biz.LinkRepo { return biz.NoteChanges(r.links, feed) }

func notedPods(r repos, feed *biz.Feed) biz.PodRepo { return biz.NoteServices(r.pods, feed) }

func newFleetUsecase(c *conf.Fleet, r repos, pods *biz.PodViews, feed *biz.Feed) *biz.FleetUsecase {
	return biz.NewFleetUsecase(r.fleet, r.fleet, r.links, pods, feed.Complete, biz.FleetOptions{Index: c.GetIndex()})
}

func newJobUsecase(c *conf.Fleet, r repos, pods *biz.PodViews) *biz.JobUsecase {
	return biz.NewJobUsecase(r.jobs, pods, biz.JobOptions{Index: c.GetIndex(), Rate: c.GetJobRate()})
}

// newRunner returns what carries out jobs. It changes links as callers do, so that the feed and the index have what it changes.
func newRunner(
	c *conf.Fleet, r repos, links biz.LinkRepo, usecase *biz.LinkUsecase, pods *biz.PodViews, workloads biz.WorkloadRepo, feed *biz.Feed,
	observer *telemetry.Jobs,
) *jobs.Runner {
	return jobs.New(jobs.Stores{
		Jobs: r.jobs, Index: r.fleet, Feed: r.fleet, Keys: r.fleet, Links: links, Moves: usecase, Pods: pods, Workloads: workloads,
		Complete: feed.Complete,
	}, jobs.Options{Rate: int(c.GetJobRate()), Observer: observer})
}

// newWatches returns the watches, and a function that ends them.
func newWatches(c *conf.Server, r repos, observer *telemetry.Fleet) (*biz.Watches, func()) {
	limits := biz.WatchLimits{Watches: int(c.GetMaxWatches()), Services: int(c.GetMaxWatchedServices())}
	watches := biz.NewWatches(r.fleet, limits, observer)
	return watches, watches.Close
}

// newExports returns the exports. They have the pace of the census, which they share with each other.
func newExports(c *conf.Fleet, r repos) *biz.Exports {
	return biz.NewExports(r.fleet, int(c.GetCensusRate()))
}

// chores are what the index and the watches need beside the listeners.
type chores []func(ctx context.Context) error

func newChores(
	c *conf.Fleet, r repos, watches *biz.Watches, runner *jobs.Runner, drain *server.Drain, observer *telemetry.Fleet,
) chores {
	all := chores{func(ctx context.Context) error { return closeAtDrain(ctx, drain, watches.Close) }}
	if !c.GetIndex() {
		return all
	}
	rate, every, holder := int(c.GetCensusRate()), c.GetSweepEvery().AsDuration(), rand.Text()
	census := biz.NewCensus(r.fleet, r.fleet, biz.CensusOptions{Rate: rate, Every: every, Holder: holder, Observer: observer})
	sweep := biz.NewSweep(r.fleet, r.fleet, r.links, biz.SweepOptions{Rate: rate, Every: every, Holder: holder, Observer: observer})
	return append(all, census.Run, sweep.Run, runner.Run)
}

// closeAtDrain ends the watches when podlink begins to drain, so that watchers come back at another podlink before the listeners close.
func closeAtDrain(ctx context.Context, drain *server.Drain, closeWatches func()) error {
	select {
	case <-drain.Started():
		closeWatches()
	case <-ctx.Done():
	}
	return nil
}
