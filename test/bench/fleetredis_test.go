//go:build bench

package bench

import (
	"fmt"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"podlink/internal/biz"
	"podlink/internal/conf"
	redistest "podlink/test/kit/redis"
)

// flushed are the numbers of changes of a flush: podlink flushes every 20 ms, or 512 changes.
var flushed = []int{1, 2, 10, 100, 512}

// TestFleetRedisTime measures the time that Redis spends on a flush: on updates of the index of a pod, and on changes in a feed.
// `make bench-scripts` counts the same in instructions.
func TestFleetRedisTime(t *testing.T) {
	const perScript, each = 0, 1
	table := &Table{
		ID: "fleet-redis-time", Title: "Redis time of a flush",
		Note: fmt.Sprintf("From the command statistics of Redis: the execution time of the script, without network and protocol. Each half of "+
			"the updates adds entries to the index of a pod with %d links, and the other half removes them.", podLinks),
		Columns: []string{"Redis time per script, µs", "per update or change, µs"},
	}
	server := redistest.Start(t)
	l, client := newLayer(t, conf.ModeStandalone, server.Addr()), driver(t, server)
	game := biz.ServiceKey{Namespace: namespace, Service: service}
	flush := func(part biz.FlushPart) {
		part.Service = game
		require.NoError(t, l.fleet.Flush(t.Context(), []biz.FlushPart{part})[0])
	}
	measured := func(row string, size int, part func(n int) biz.FlushPart) {
		flush(part(0))
		require.NoError(t, client.ConfigResetStat(t.Context()).Err())
		calls := 2 * 100 * turns()
		for n := range calls {
			flush(part(n + 1))
		}
		spent := float64(commandTime(t, client)) / float64(time.Microsecond) / float64(calls)
		table.add(row, perScript, spent)
		table.add(row, each, spent/float64(size))
	}
	for run := range runs {
		progress(run, "Redis time of flushes")
		for _, size := range flushed {
			require.NoError(t, client.FlushDB(t.Context()).Err())
			flush(biz.FlushPart{Updates: entries(biz.AddEntry, size, podLinks/2)})
			flush(biz.FlushPart{Updates: entries(biz.AddEntry, size+podLinks/2, podLinks/2)})
			measured("the index of a pod, updates: "+strconv.Itoa(size), size, func(n int) biz.FlushPart {
				return biz.FlushPart{Updates: entries([]biz.IndexOp{biz.AddEntry, biz.RemoveEntry}[n%2], 0, size)}
			})
			measured("the feed of a service, changes: "+strconv.Itoa(size), size, func(int) biz.FlushPart {
				return biz.FlushPart{Changes: changes(size)}
			})
		}
	}
	results.tables(table)
	results.target(Target{
		Measure: "Redis time of an update of the index, 100 updates of one pod in a flush", Limit: 1, Unit: "µs",
		Runs: table.row("the index of a pod, updates: 100").Cells[each],
	})
}

// entries returns updates of the entries of users from first on.
func entries(op biz.IndexOp, first, count int) []biz.IndexUpdate {
	all := make([]biz.IndexUpdate, count)
	for i := range all {
		all[i] = biz.IndexUpdate{Op: op, Entry: biz.IndexEntry{UID: user(first + i), Epoch: 1795408417769593}}
	}
	return all
}

// changes returns that many moves of users.
func changes(count int) []biz.Change {
	all := make([]biz.Change, count)
	for i := range all {
		link := biz.Link{Key: linkOf(user(i)), Pod: 3, TTL: biz.Forever, Epoch: 1795408417769593}
		all[i] = biz.Change{Kind: biz.Moved, Link: link, Previous: 2, Time: time.Now()}
	}
	return all
}
