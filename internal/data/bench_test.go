package data

import (
	"context"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"podlink/internal/biz"
	"podlink/internal/conf"
	"podlink/test/redistest"
)

// BenchmarkCallers compares calls that share round trips with calls that have one each, from few and from many callers
// at once. Compare the two of one run: the figures themselves are those of the machine.
func BenchmarkCallers(b *testing.B) {
	const uids = 10_000
	server := redistest.Start(b)
	key := func(i int) biz.LinkKey {
		return biz.LinkKey{Namespace: "ns", UID: "user-" + strconv.Itoa(i%uids), Service: "game"}
	}
	for _, callers := range []int{1, 16, 64, 256} {
		for _, shared := range []bool{true, false} {
			store := openStore(b, on(server.Addr()), func(c *conf.Data_Redis) {
				c.PoolSize, c.AutoPipeline = 256, shared
			})
			links := reposOf(store).Links
			for i := range uids {
				require.NoError(b, second(links.Set(context.Background(), key(i), 1, biz.Forever, nil)))
			}
			for _, operation := range []struct {
				name string
				call func(i int) error
			}{
				{"Get", func(i int) error { return second(links.Get(context.Background(), key(i))) }},
				{"Set", func(i int) error {
					return second(links.Set(context.Background(), key(i), biz.PodID(i%3), biz.Forever, nil))
				}},
			} {
				name := fmt.Sprintf("%s/callers=%d/auto_pipeline=%t", operation.name, callers, shared)
				b.Run(name, func(b *testing.B) { callFrom(b, callers, operation.call) })
			}
		}
	}
}

// callFrom makes b.N calls from that many callers.
func callFrom(b *testing.B, callers int, call func(i int) error) {
	b.Helper()
	b.ReportAllocs()
	var next atomic.Int64
	var running sync.WaitGroup
	for range callers {
		running.Go(func() {
			for i := int(next.Add(1)); i <= b.N; i = int(next.Add(1)) {
				if err := call(i); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	running.Wait()
}
