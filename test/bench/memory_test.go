//go:build bench

package bench

import (
	"fmt"
	"strconv"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"podlink/internal/biz"
	"podlink/internal/conf"
	redistest "podlink/test/kit/redis"
)

// shape is a way to store users' links.
type shape struct {
	name      string
	namespace string
	links     int // of each user
	put       func(pipe redis.Pipeliner, uid string, pod int32)
	ttl       biz.TTL // that podlink must read back; Gone: not podlink's data
}

// shapes are the ways to store links whose memory is compared.
func shapes(t *testing.T) []shape {
	t.Helper()
	ctx := t.Context()
	expiry := time.Now().Add(24 * time.Hour).Truncate(time.Second)
	temporary := epoch + " " + strconv.FormatInt(expiry.UnixMilli(), 10)
	persistent := func(name, namespace string) shape {
		return shape{name, namespace, 1, func(pipe redis.Pipeliner, uid string, pod int32) {
			pipe.HSet(ctx, keyIn(namespace, uid), service, value(pod))
		}, biz.Forever}
	}
	return []shape{
		persistent("persistent", namespace), persistent("persistent, namespace of 2 letters", "eu"),
		{"persistent, claimed", namespace, 1, func(pipe redis.Pipeliner, uid string, pod int32) {
			pipe.HSet(ctx, podlinkKey(uid), service, value(pod)+" "+epoch)
		}, biz.Forever},
		{"persistent, 4 services", namespace, 4, func(pipe redis.Pipeliner, uid string, pod int32) {
			pipe.HSet(ctx, podlinkKey(uid), service, value(pod), "chat", value(pod), "team", value(pod), "shop", value(pod))
		}, biz.Forever},
		{"temporary", namespace, 1, func(pipe redis.Pipeliner, uid string, pod int32) {
			pipe.HSet(ctx, podlinkKey(uid), service, strconv.Itoa(int(pod))+" "+temporary)
			pipe.PExpireAt(ctx, podlinkKey(uid), expiry.Add(time.Second))
		}, 24 * 60 * 60},
		{"the predecessors' persistent", namespace, 1, func(pipe redis.Pipeliner, uid string, pod int32) {
			keys := predecessorKeys(uid, service)
			pipe.Set(ctx, keys[0], pod, 0)
			pipe.HSet(ctx, keys[1], service, pod)
		}, biz.Gone},
	}
}

// linkCounts returns the numbers of links that are measured, and the typical one, used for the figures per link.
func linkCounts() (all []int, typical int) {
	if quick {
		return []int{10_000, 100_000}, 100_000
	}
	return []int{10_000, 100_000, 1_000_000, 5_000_000}, 1_000_000
}

// TestMemory measures what links take in Redis.
func TestMemory(t *testing.T) {
	const perLink, perUID = 0, 1
	counts, typical := linkCounts()
	table := &Table{
		ID: "memory-per-link", Title: fmt.Sprintf("Memory per link, of %d links", typical),
		Note:    "Uids have 12 bytes, service names 4, and the namespace 5 unless said otherwise.",
		Columns: []string{"per link, B", "per uid, B"},
	}
	chart := &Chart{
		ID: "memory-links", Title: "Memory against links", Note: "The largest number is measured once.",
		X: "links", Y: "memory, MB", LogX: true, LogY: true,
	}
	for run := range runs {
		for _, s := range shapes(t) {
			progress(run, "memory of links, %s", s.name)
			server := redistest.Start(t)
			client := server.Client(t)
			empty, made := usedMemory(t, client), 0
			for i, links := range counts {
				if run > 0 && links > typical {
					continue // It takes long, and runs don't differ.
				}
				wanted := links / s.links
				populate(t, client, wanted-made, func(pipe redis.Pipeliner, n int) { s.put(pipe, user(made+n), podOf(n)) })
				made = wanted
				bytes := usedMemory(t, client) - empty
				chart.add(s.name, float64(counts[i]), bytes/1e6)
				if links == typical {
					table.add(s.name, perLink, bytes/float64(links))
					table.add(s.name, perUID, bytes/float64(wanted))
				}
			}
			s.readBack(t, server.Addr(), made)
			server.Kill()
		}
	}
	results.charts(chart)
	results.tables(table)
	for _, target := range []struct {
		measure, row string
		limit        float64
	}{
		{"Memory per uid with one persistent link", "persistent", 145},
		{"Memory per uid with one claimed link", "persistent, claimed", 170},
		{"Memory per link with four services per uid", "persistent, 4 services", 60},
	} {
		results.target(Target{Measure: target.measure, Limit: target.limit, Unit: "B", Runs: table.row(target.row).Cells[perLink]})
	}
}

// readBack checks that podlink reads the stored values as links.
func (s shape) readBack(t *testing.T, addr string, users int) {
	t.Helper()
	if s.ttl == biz.Gone {
		return
	}
	links := newLayer(t, conf.ModeStandalone, addr).links
	for _, n := range []int{0, users / 2, users - 1} {
		all, err := links.List(t.Context(), s.namespace, user(n))
		require.NoError(t, err)
		require.Len(t, all, s.links)
		for _, link := range all {
			require.InDelta(t, int(s.ttl), int(link.TTL), 3600, "%+v", link)
			require.EqualValues(t, epoch, strconv.Itoa(int(link.Epoch)))
		}
	}
}

// usedMemory returns the memory of Redis in bytes, without the buffers of its clients.
func usedMemory(t *testing.T, client *redis.Client) float64 {
	t.Helper()
	info := client.InfoMap(t.Context(), "memory")
	all, err := strconv.ParseFloat(info.Item("Memory", "used_memory"), 64)
	require.NoError(t, err)
	buffers, err := strconv.ParseFloat(info.Item("Memory", "mem_clients_normal"), 64)
	require.NoError(t, err)
	return all - buffers
}
