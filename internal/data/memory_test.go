package data

import (
	"fmt"
	"strconv"
	"testing"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	redistest "podlink/test/kit/redis"
)

// mostPerLink is what a link takes at most, in bytes of Redis' memory, its entry in the index included.
const mostPerLink = 285

// TestMemoryOfALink: a claimed link of a uid of 12 bytes, in a namespace of 5 letters and a service of 4, and its entry in the index of a
// pod with 1,000 of them take no more than the bound. docs/data-model.md has the figures.
func TestMemoryOfALink(t *testing.T) {
	const links, pods, epoch = 100_000, 100, 1_700_000_000_000_000
	store := openStore(t, onServer(redistest.Start(t).Addr()), withLongTimeouts, prefix("podlink"))
	used := func() int {
		t.Helper()
		bytes, err := strconv.Atoi(redistest.InfoField(store.client.Info(t.Context(), "memory").Val(), "used_memory"))
		require.NoError(t, err)
		return bytes
	}
	fill := func(put func(pipe redis.Pipeliner, i int)) int {
		t.Helper()
		before := used()
		const chunk = 1000
		for i := 0; i < links; i += chunk {
			pipe := store.client.Pipeline()
			for n := range chunk {
				put(pipe, i+n)
			}
			_, err := pipe.Exec(t.Context())
			require.NoError(t, err)
		}
		return (used() - before) / links
	}
	uid := func(i int) string { return fmt.Sprintf("user-%07d", i) }
	service := game
	service.Namespace = "games"
	link := fill(func(pipe redis.Pipeliner, i int) {
		value := fmt.Sprintf("%d %d 0 %d", i%pods, epoch+i, epoch+i)
		pipe.HSet(t.Context(), store.keys.links(service.Namespace, uid(i)), service.Service, value)
	})
	entry := fill(func(pipe redis.Pipeliner, i int) {
		pipe.Eval(t.Context(), scriptUpdateIndex.Source(), []string{fmt.Sprintf("podlink:index:games:game:%d", i%pods)},
			opAdd, uid(i), strconv.Itoa(epoch+i))
	})
	t.Logf("a link takes %d bytes, its entry in the index %d", link, entry)
	require.LessOrEqual(t, link+entry, mostPerLink)
}
