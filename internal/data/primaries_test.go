package data

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	redistest "podlink/test/kit/redis"
)

// TestOnlyPrimariesAreUsed: a replica may lag behind its primary, so no call is sent to one.
func TestOnlyPrimariesAreUsed(t *testing.T) {
	parallel(t)
	test := func(t *testing.T, store *testStore, primaries []*redistest.Server, replica *redistest.Server) {
		t.Helper()
		waitReady(t, store)
		for _, call := range repoCalls {
			populate(t, store)
			require.True(t, isAnswer(call.do(t.Context(), reposOf(store), populated)), call.name)
		}
		scripts := 0
		for _, primary := range primaries {
			scripts += executions(t, primary.Client(t))
		}
		require.Positive(t, scripts)
		direct, stats := replica.Client(t), ""
		require.Eventually(t, func() bool {
			stats = direct.Info(context.Background(), "commandstats").Val()
			return strings.Contains(stats, "cmdstat_hset:")
		}, 10*time.Second, 10*time.Millisecond, "it replicates its primary")
		for _, command := range []string{"eval", "evalsha", "hget", "hmget", "hgetall"} {
			require.NotContains(t, stats, "cmdstat_"+command+":")
		}
	}
	t.Run("sentinel", func(t *testing.T) {
		s := redistest.StartSentinel(t, redistest.SentinelOptions{})
		store := openStore(t, onSentinel(s), withLongTimeouts)
		primary := s.Primary()
		test(t, store, []*redistest.Server{primary}, otherServer(s.Servers(), primary))
	})
	t.Run("cluster", func(t *testing.T) {
		c := redistest.StartCluster(t, redistest.ClusterOptions{Primaries: 1, Replicas: 1})
		test(t, openStore(t, onCluster(c.Addrs()), withLongTimeouts), c.Primaries(), c.ReplicaOf(c.Primaries()[0]))
	})
}

// otherServer returns the one of two servers that is not one.
func otherServer(servers []*redistest.Server, one *redistest.Server) *redistest.Server {
	if servers[0] == one {
		return servers[1]
	}
	return servers[0]
}
