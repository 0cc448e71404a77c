//go:build bench

package bench

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/redis/go-redis/v9"

	"podlink/internal/biz"
	"podlink/internal/conf"
	redistest "podlink/test/kit/redis"
)

// grown is podlink's data layer on a data set or cluster of a given size.
type grown struct {
	layer
	size, users int
	raw         *redis.AutoPipeliner // the driver alone on the same Redis; nil if not compared
	service     string               // of the users' links
}

// growing is an operation on a random user, measured at every size.
type growing struct {
	name string
	call func(g grown, ctx context.Context, link biz.LinkKey) error
}

var growingGet = growing{"Get", func(g grown, ctx context.Context, link biz.LinkKey) error {
	return linkExists(g.links.Get(ctx, link))
}}

// growingHGet is the driver alone, for comparison.
var growingHGet = growing{autoHGet, func(g grown, ctx context.Context, link biz.LinkKey) error {
	return g.raw.HGet(ctx, podlinkKey(link.UID), link.Service).Err()
}}

// growingSet moves the user to a random pod: one call in a thousand doesn't change the pod.
var growingSet = growing{"Set", func(g grown, ctx context.Context, link biz.LinkKey) error {
	return applied(g.links.Set(ctx, link, biz.PodID(rand.IntN(1000)), biz.Forever, biz.SetTerms{}))
}}

// compareGrown compares the operations at all sizes, with many callers.
func compareGrown(t *testing.T, chart *Chart, all []grown, operations ...growing) {
	t.Helper()
	for run := range runs {
		for _, operation := range operations {
			progress(run, "growth of %s, %s", chart.X, operation.name)
			var rivals []rival
			for _, g := range all {
				rivals = append(rivals, rival{
					name: fmt.Sprintf("%d %s", g.size, chart.X),
					call: func(ctx context.Context, _ int) error {
						return operation.call(g, ctx, biz.LinkKey{Namespace: namespace, UID: user(rand.IntN(g.users)), Service: g.service})
					},
				})
			}
			for i, m := range compare(t, steady(), crowd, rivals...) {
				chart.add(operation.name, float64(all[i].size), m.rate())
			}
		}
	}
	results.charts(chart)
}

// growthTargets adds a target for each series: its throughput hardly falls from the first size to the last.
func growthTargets(chart *Chart) {
	for _, series := range chart.Series {
		if series.Name == autoHGet {
			continue // It shows Redis' share of the change.
		}
		first, last := series.Points[0], series.Points[len(series.Points)-1]
		target := Target{
			Measure: fmt.Sprintf("%s with %s %s: throughput, of that with %s",
				series.Name, figure(last.X), chart.X, figure(first.X)),
			AtLeast: true, Limit: .9,
		}
		for run := range last.Runs {
			target.Runs = append(target.Runs, last.Runs[run]/first.Runs[run])
		}
		results.target(target)
	}
}

// TestGrowthOfLinks compares stores with few and with many links.
func TestGrowthOfLinks(t *testing.T) {
	chart := &Chart{
		ID: "growth-links", Title: "Throughput against links",
		Note: fmt.Sprintf("From %d callers, each call about a random user. One Redis for each size, in turns.", crowd),
		X:    "links", Y: "calls per second", LogX: true,
	}
	var all []grown
	counts, _ := linkCounts()
	for _, links := range counts {
		progress(0, "growth of links, %d of them are stored", links)
		server := redistest.Start(t)
		put(t, server.Client(t), links, service)
		all = append(all, grown{
			layer: newLayer(t, conf.ModeStandalone, server.Addr()), size: links, users: links, service: service,
			raw: autoPipelined(t, driver(t, server)),
		})
	}
	compareGrown(t, chart, all, growingGet, growingHGet, growingSet)
	growthTargets(chart)
}

// TestGrowthOfPods compares services with few and with many pods.
func TestGrowthOfPods(t *testing.T) {
	chart := &Chart{
		ID: "growth-pods", Title: "ComputeLinkedPod against pods",
		Note: fmt.Sprintf("From %d callers, each call about a random one of %d users with a link.", crowd, users),
		X:    "pods", Y: "calls per second", LogX: true,
	}
	server := redistest.Start(t)
	layer := newLayer(t, conf.ModeStandalone, server.Addr())
	var all []grown
	for _, size := range []int{10, 100, 1000} {
		service := fmt.Sprintf("service-%d", size)
		layer.report(t, service, size)
		put(t, server.Client(t), users, service)
		all = append(all, grown{layer: layer, size: size, users: users, service: service})
	}
	compareGrown(t, chart, all, growing{computeStanding, func(g grown, ctx context.Context, link biz.LinkKey) error {
		return g.computeStanding(ctx, link)
	}})
	growthTargets(chart)
}

// TestGrowthOfNodes compares clusters with few and with many nodes.
func TestGrowthOfNodes(t *testing.T) {
	chart := &Chart{
		ID: "growth-nodes", Title: "Throughput against nodes of a cluster",
		Note: fmt.Sprintf("From %d callers, each call about a random one of %d users. All nodes and the callers share the machine.",
			crowd, users),
		X: "nodes", Y: "calls per second",
	}
	sizes := []int{1, 2, 3}
	if quick {
		sizes = slices.Delete(sizes, 1, 2)
	}
	var all []grown
	for _, size := range sizes {
		cluster := redistest.StartCluster(t, redistest.ClusterOptions{Primaries: size})
		client := redis.NewClusterClient(&redis.ClusterOptions{Addrs: cluster.Addrs()})
		put(t, client, users, service)
		_ = client.Close()
		all = append(all, grown{
			layer: newLayer(t, conf.ModeCluster, cluster.Addrs()...), size: size, users: users, service: service,
		})
	}
	compareGrown(t, chart, all, growingGet, growingSet)
}
