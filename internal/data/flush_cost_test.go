//go:build bench

package data

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"text/tabwriter"
	"time"

	"github.com/stretchr/testify/require"

	"podlink/internal/biz"
)

// TestFlushCost counts the instructions of Redis for an update of the index of a pod, and for a change in a feed, by how many of them
// come in one script. `make bench-scripts` runs it; `make bench-fleet` measures the same in time.
func TestFlushCost(t *testing.T) {
	counted := startCounted(t)
	table := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "in a flush\tinstructions per entry added\tper entry removed\tper change in the feed\t")
	const epoch, standing, maxUpdates = "1795408417769593", 1024, 512
	for _, size := range []int{1, 2, 10, 100} {
		updates := func(op string, first, count int) []any {
			var args []any
			for n := range count {
				args = append(args, op, fmt.Sprintf("user-%07d", first+n), epoch)
			}
			return args
		}
		changes := make([]biz.Change, size)
		for n := range changes {
			link := biz.Link{Key: linkOf(game, fmt.Sprintf("user-%07d", n)), Pod: 3, TTL: biz.Forever, Epoch: 1795408417769593}
			changes[n] = biz.Change{Kind: biz.Moved, Link: link, Previous: 2, Time: time.Now()}
		}
		text := encodeChanges(changes)
		require.Equal(t, size, 1+strings.Count(text, "\n"))
		require.NoError(t, counted.client.FlushDB(t.Context()).Err())
		for first := range standing / maxUpdates {
			// By EVAL, which is not counted. Redis searches a small hash from its beginning, which the index of a pod seldom is.
			others := updates(opAdd, 1_000_000+first*maxUpdates, maxUpdates)
			require.NoError(t, counted.client.Eval(t.Context(), scriptUpdateIndex.Source(), []string{"service"}, others...).Err())
		}
		added := counted.repeat(t, scriptUpdateIndex, func(i int) []any { return updates(opAdd, i*size, size) })
		removed := counted.repeat(t, scriptUpdateIndex, func(i int) []any { return updates(opRemove, i*size, size) })
		require.NoError(t, counted.client.FlushDB(t.Context()).Err())
		appended := counted.repeat(t, scriptAppendFeed, func(int) []any { return []any{fieldChanges, text, time.Minute.Milliseconds()} })
		fmt.Fprintf(table, "%d\t%d\t%d\t%d\t\n", size, added/size, removed/size, appended/size)
	}
	require.NoError(t, table.Flush())
}
