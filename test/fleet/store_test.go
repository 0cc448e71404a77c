//go:build fleet

package fleet

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"
)

// What a test reads and writes in Redis itself, by the layout of docs/data-model.md.
const (
	linkPrefix   = "podlink:link:" + namespace + ":"
	indexPrefix  = "podlink:index:" + namespace + ":" + service + ":"
	indexedPods  = "podlink:indexed:" + namespace + ":" + service
	feedKey      = "podlink:feed:" + namespace + ":" + service
	scanCount    = 2000
	fleetKey     = "podlink:fleet"
	persistently = "0" // the expiry of a persistent link
)

func linkKey(uid string) string { return linkPrefix + uid }

func indexKey(pod int32) string { return indexPrefix + strconv.Itoa(int(pod)) }

// link is a persistent link, as it is stored.
type link struct {
	pod   int32
	epoch int64
	claim int64
}

// stored returns all links. There must be no others than persistent ones of the service.
func (f *fleet) stored() map[string]link {
	f.Helper()
	links := make(map[string]link, *allLinks)
	for cursor, more := uint64(0), true; more; more = cursor != 0 {
		keys, next, err := f.redis.Scan(f.Context(), cursor, linkPrefix+"*", scanCount).Result()
		require.NoError(f, err)
		cursor = next
		values := make([]*redis.MapStringStringCmd, len(keys))
		_, err = f.redis.Pipelined(f.Context(), func(pipe redis.Pipeliner) error {
			for i, key := range keys {
				values[i] = pipe.HGetAll(f.Context(), key)
			}
			return nil
		})
		require.NoError(f, err)
		for i, key := range keys {
			fields := values[i].Val()
			one, err := parseLink(fields[service])
			if err != nil || len(fields) != 1 {
				require.Fail(f, "not the link of a user", "%s: %v: %v", key, fields, err)
			}
			links[strings.TrimPrefix(key, linkPrefix)] = one
		}
	}
	return links
}

func parseLink(value string) (one link, err error) {
	numbers := strings.Fields(value)
	if len(numbers) != 3 && len(numbers) != 4 || numbers[2] != persistently {
		return link{}, fmt.Errorf("%q is no persistent link", value)
	}
	pod, err := strconv.ParseInt(numbers[0], 10, 32)
	one.pod = int32(pod)
	if err == nil {
		one.epoch, err = strconv.ParseInt(numbers[1], 10, 64)
	}
	if err == nil && len(numbers) == 4 {
		one.claim, err = strconv.ParseInt(numbers[3], 10, 64)
	}
	return one, err
}

// gaps returns how many gaps there were.
func (f *fleet) gaps() int64 {
	f.Helper()
	gaps, err := f.redis.HGet(f.Context(), fleetKey, "gaps").Int64()
	if err != redis.Nil { //nolint:errorlint // go-redis returns it as it is.
		require.NoError(f, err)
	}
	return gaps
}

// entries returns how many links the index of a pod has.
func (f *fleet) entries(pod int32) int64 {
	f.Helper()
	n, err := f.redis.HLen(f.Context(), indexKey(pod)).Result()
	require.NoError(f, err)
	return n
}

// lastOfFeed returns the id of the last entry of the feed.
func (f *fleet) lastOfFeed() string {
	f.Helper()
	last, err := f.redis.XRevRangeN(f.Context(), feedKey, "+", "-", 1).Result()
	require.NoError(f, err)
	require.Len(f, last, 1)
	return last[0].ID
}

// moves returns how often each user was moved, by the entries of the feed after one.
func (f *fleet) moves(after string) map[string]int {
	f.Helper()
	moves := make(map[string]int)
	for {
		entries, err := f.redis.XRangeN(f.Context(), feedKey, "("+after, "+", 1000).Result()
		require.NoError(f, err)
		if len(entries) == 0 {
			return moves
		}
		for _, entry := range entries {
			after = entry.ID
			changes, _ := entry.Values["c"].(string)
			for change := range strings.Lines(changes) {
				fields := strings.SplitN(strings.TrimSuffix(change, "\n"), " ", 9)
				if fields[0] == "M" {
					moves[fields[8]]++
				}
			}
		}
	}
}
