//go:build bench

package bench

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	v1 "podlink/api/podlink/v1"
	podlinktest "podlink/test/kit/podlink"
	redistest "podlink/test/kit/redis"
)

const (
	// listedPod is the pod whose links are listed, and listed how many it has. Every other pod has podLinks.
	listedPod, listed = 0, 10_000
	podLinks          = 1000
	// listPage is the page that is asked for. A page has up to as many links, because a hash is walked by buckets.
	listPage = 1000
)

// TestFleetLists compares the pages of a list in a store that has only the listed links with those in one that has many others, and
// measures the memory of a link with its entry in the index.
func TestFleetLists(t *testing.T) {
	sizes := []int{listed, 1_000_000}
	if quick {
		sizes[1] = 50_000
	}
	const perPage, p50, p99, podlinkCPU, redisCPU, memory = 0, 1, 2, 3, 4, 5
	table := &Table{
		ID: "fleet-lists", Title: fmt.Sprintf("ListPodLinks, pages of %d", listPage),
		Note: fmt.Sprintf("One caller walks over the %d links of a pod over gRPC, page by page, in turns in each store. The other pods have "+
			"%d links each. All links are claimed; uids have 12 bytes, service names 4, and the namespace 5.", listed, podLinks),
		Columns: []string{
			"links on a page", "p50, ms", "p99, ms", "podlink's CPU per page, ms", "Redis' CPU per page, ms", "memory per link, B",
		},
	}
	name := func(links int) string { return fmt.Sprintf("%d links", links) }
	var listers []*lister
	for _, links := range sizes {
		progress(0, "lists, %d links are stored", links)
		redis := redistest.Start(t)
		client := redis.Client(t)
		empty := usedMemory(t, client)
		putIndexed(t, client, links)
		table.add(name(links), memory, (usedMemory(t, client)-empty)/float64(links))
		podlink := podlinktest.Start(t, binary, podlinktest.OnRedis("standalone", redis.Addr())...)
		podlink.WaitReady(t)
		l := &lister{fleet: v1.NewFleetServiceClient(podlink.Conn(t)), podlink: podlink.PID(), redis: redisPID(t, redis)}
		l.walk(t)
		listers = append(listers, l)
	}
	for run := range runs {
		progress(run, "lists")
		var calls []func(ctx context.Context) error
		for _, l := range listers {
			l.links, l.spent = 0, cpu{server: -cpuTime(t, l.podlink), redis: -cpuTime(t, l.redis)}
			calls = append(calls, func(ctx context.Context) error {
				_, err := l.page(ctx)
				return err
			})
		}
		for i, pages := range alternate(t, 2*time.Duration(turns())*slice(), calls...) {
			l, row := listers[i], name(sizes[i])
			l.spent.server += cpuTime(t, l.podlink)
			l.spent.redis += cpuTime(t, l.redis)
			latencies, count := pages.percentiles(.5, .99), float64(pages.calls)
			table.add(row, perPage, float64(l.links)/count)
			table.add(row, p50, latencies[0])
			table.add(row, p99, latencies[1])
			table.add(row, podlinkCPU, float64(l.spent.server)/float64(time.Millisecond)/count)
			table.add(row, redisCPU, float64(l.spent.redis)/float64(time.Millisecond)/count)
		}
	}
	results.tables(table)
	few, many := table.row(name(sizes[0])).Cells, table.row(name(sizes[1])).Cells
	var ratios Runs
	for run := range many[p50] {
		ratios = append(ratios, many[p50][run]/few[p50][run])
	}
	results.target(Target{
		Measure: fmt.Sprintf("ListPodLinks, a page of %d, %d links in the store: p50", listPage, sizes[1]),
		Limit:   15, Unit: "ms", Runs: many[p50],
	})
	results.target(Target{
		Measure: fmt.Sprintf("ListPodLinks, %d links in the store: p50, of that with the %d listed ones alone", sizes[1], sizes[0]),
		Limit:   1.1, Runs: ratios,
	})
	results.target(Target{
		Measure: fmt.Sprintf("Memory of a claimed link with its entry in the index, of %d", sizes[1]),
		Limit:   285, Unit: "B", Runs: many[memory],
	})
}

// putIndexed stores claimed links and an index that has all of them, as a census leaves it.
func putIndexed(t *testing.T, client redis.UniversalClient, links int) {
	t.Helper()
	ctx := t.Context()
	podOf := func(n int) int32 {
		if n < listed {
			return listedPod
		}
		return int32(1 + (n-listed)/podLinks)
	}
	populate(t, client, links, func(pipe redis.Pipeliner, n int) {
		pod := podOf(n)
		pipe.HSet(ctx, podlinkKey(user(n)), service, value(pod)+" "+epoch)
		pipe.HSet(ctx, fmt.Sprintf("podlink:index:%s:%s:%d", namespace, service, pod), user(n), epoch)
		if n%podLinks == 0 {
			pipe.SAdd(ctx, "podlink:indexed:"+namespace+":"+service, pod)
		}
	})
	require.NoError(t, client.SAdd(ctx, "podlink:services", namespace+":"+service).Err())
	require.NoError(t, client.HSet(ctx, "podlink:fleet", "covered", 1).Err())
}

// lister walks over the links of a pod again and again.
type lister struct {
	fleet          v1.FleetServiceClient
	podlink, redis int // process ids
	token          string
	links          int // on all pages so far
	spent          cpu
}

// page reads the next page.
func (l *lister) page(ctx context.Context) (*v1.ListPodLinksReply, error) {
	reply, err := l.fleet.ListPodLinks(ctx, &v1.ListPodLinksRequest{
		Namespace: namespace, Service: service, PodId: proto.Int32(listedPod), PageSize: listPage, PageToken: l.token,
	})
	if err == nil {
		l.token = reply.GetNextPageToken()
		l.links += len(reply.GetLinks())
	}
	return reply, err
}

// walk checks that the list has all links, and says so.
func (l *lister) walk(t *testing.T) {
	t.Helper()
	uids := make(map[string]bool)
	for {
		reply, err := l.page(t.Context())
		require.NoError(t, err)
		for _, link := range reply.GetLinks() {
			uids[link.GetUid()] = true
		}
		if l.token == "" {
			require.True(t, reply.GetComplete())
			require.Len(t, uids, listed)
			return
		}
	}
}
