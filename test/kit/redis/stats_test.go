package redis

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestStatsOf(t *testing.T) {
	client := Start(t).Client(t)
	require.NoError(t, client.Set(t.Context(), "a", "1", 0).Err())
	require.Error(t, client.HGet(t.Context(), "a", "b").Err(), "a is no hash")
	require.NoError(t, client.Get(t.Context(), "a").Err())
	require.NoError(t, client.Get(t.Context(), "a").Err())

	stats := StatsOf(t, client, "get", "hget", "hset")
	require.Positive(t, stats.Time)
	stats.Time = 0
	require.Equal(t, CommandStats{Calls: 3, Failed: 1}, stats)

	require.NoError(t, client.ConfigResetStat(t.Context()).Err())
	require.Zero(t, StatsOf(t, client, "get", "hget"))
}
