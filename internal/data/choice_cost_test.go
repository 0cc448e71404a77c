//go:build bench

package data

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"text/tabwriter"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"podlink/internal/rdb"
)

// choiceSizes are services of many sizes.
var choiceSizes = []struct {
	name       string
	live, dead int
	state      string
}{
	{"10 pods", 10, 0, "running"},
	{"100 pods", 100, 0, "running"},
	{"1,000 pods", 1000, 0, "running"},
	{"10 pods, 10,000 dead", 10, 10_000, "running"},
	{"10 pods, 1 KiB of emoji each", 10, 0, strings.Repeat("🙂", 256)},
	{"1,000 pods, 1 KiB of emoji each", 1000, 0, strings.Repeat("🙂", 256)},
}

// TestChoiceCost counts the instructions of Redis for one new link, and for one report, at each size of the service. It fails if
// a choice costs more than 1.3 times that at 10 pods. A batch looks at as many pods as it has links, so there its cost is only
// bounded. `make bench-scripts` runs it.
func TestChoiceCost(t *testing.T) {
	counted := startCounted(t)
	table := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "service\tinstructions per new link\tof a batch\tper report\t")
	base, batchBase := 0, 0
	links := []any{""}
	for range maxChoices {
		links = append(links, "-1")
	}
	for _, size := range choiceSizes {
		require.NoError(t, counted.client.FlushDB(t.Context()).Err())
		report := func(pod, ttl int, heard string) []any {
			return []any{pod, pod % 7, 0, -1, ttl, "*", 0, 0, 0, "-", "-", escape(size.state), heard, "one", 100_000, 1 << 42}
		}
		for pod := range size.live + size.dead {
			// By EVAL, which is not counted.
			require.NoError(t, counted.client.Eval(t.Context(), scriptSetState.Source(), []string{"service"}, report(pod, 60_000, "id")...).Err())
		}
		counted.bury(t, size.live, size.dead)
		choice := counted.repeat(t, scriptReservePod, func(int) []any { return []any{-1} })
		batched := counted.repeat(t, scriptReservePods, func(int) []any { return links }) / maxChoices
		reports := counted.repeat(t, scriptSetState, func(i int) []any { return report(i%size.live, 60_000, "id") })
		fmt.Fprintf(table, "%s\t%d\t%d\t%d\t\n", size.name, choice, batched, reports)
		if base == 0 {
			base, batchBase = choice, batched
		}
		require.Less(t, float64(choice), 1.3*float64(base), size.name)
		require.Less(t, float64(batched), 4*float64(batchBase), size.name)
	}
	require.NoError(t, table.Flush())
}

// bury makes the pods from the first one on dead for certain.
func (s *countedServer) bury(t *testing.T, first, pods int) {
	t.Helper()
	for pod := first; pod < first+pods; pod++ {
		low := fmt.Sprint(-(pod + 2))
		members, err := s.client.ZRangeArgs(t.Context(), redis.ZRangeArgs{Key: "service", ByScore: true, Start: low, Stop: low}).Result()
		require.NoError(t, err)
		entry := fmt.Sprintf("%010d", pod)
		pipe := s.client.Pipeline()
		pipe.ZRem(t.Context(), "service", members[0])
		fields := strings.Split(members[0], " ")
		pipe.ZRem(t.Context(), "service", strings.Join([]string{entry, fields[1], fields[5], fields[6], fields[7], fields[8], "0"}, " "))
		pipe.ZAdd(t.Context(), "service",
			redis.Z{Score: -float64(1<<33 + pod + 2), Member: members[0]}, redis.Z{Score: float64(1<<51 + pod), Member: fmt.Sprint("@", pod)})
		_, err = pipe.Exec(t.Context())
		require.NoError(t, err)
	}
}

// repeat returns the instructions per call of the script on the service.
func (s *countedServer) repeat(t *testing.T, script *rdb.Script, args func(i int) []any) int {
	t.Helper()
	require.NoError(t, s.client.ScriptLoad(t.Context(), script.Source()).Err())
	s.count(t)
	for i := range costCalls {
		require.NoError(t, s.client.EvalSha(t.Context(), scriptSHA(script), []string{"service"}, args(i)...).Err())
	}
	return s.count(t) / costCalls
}
