package redis

import (
	"context"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"
)

func TestSentinel(t *testing.T) {
	t.Parallel()
	for name, options := range map[string]SentinelOptions{
		"plain":               {},
		"passwords, and slow": {Password: "data", SentinelPassword: "watch", DownAfter: 2 * time.Second},
		"behind proxies, AOF": {Proxied: true, Args: []string{"--appendonly", "yes"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ctx := context.Background()
			set := StartSentinel(t, options)
			require.Len(t, set.Addrs(), 3)
			client := redis.NewFailoverClient(&redis.FailoverOptions{
				MasterName: set.MasterName(), SentinelAddrs: set.Addrs(),
				Password: options.Password, SentinelPassword: options.SentinelPassword,
			})
			t.Cleanup(func() { _ = client.Close() })
			require.NoError(t, client.Set(ctx, "key", "first", 0).Err())
			require.Same(t, set.Servers()[0], set.Primary())
			for i, proxy := range set.Proxies() {
				proxy.LoseReplies(1)
				require.NoError(t, client.Eval(ctx, count, []string{"n"}).Err()) // The driver retries.
				require.Equal(t, 1-i, proxy.Lost(), "the client connects through the primary's proxy")
			}

			for round := range 2 { // Both servers are primary in turn.
				killed := set.KillPrimary()
				primary := set.WaitNewPrimary(killed)
				require.NotSame(t, killed, primary)
				require.False(t, set.healthy(), "the replica is missing")
				begin := time.Now()
				killed.Restart()
				set.WaitHealthy()
				t.Logf("round %d: healthy %s after the restart", round, time.Since(begin))
				require.Same(t, primary, set.Primary())
				require.Eventually(t, func() bool { return client.Set(ctx, "key", round, 0).Err() == nil }, 10*time.Second, poll)
				require.EqualValues(t, 1, primary.Client(t).Wait(ctx, 1, 5*time.Second).Val())
				require.Equal(t, client.Get(ctx, "key").Val(), killed.Client(t).Get(ctx, "key").Val())
			}
		})
	}
}
