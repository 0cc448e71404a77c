//go:build faults

package faults

import (
	"context"
	"net/http"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	podlinktest "podlink/test/kit/podlink"
	redistest "podlink/test/kit/redis"
)

// order is a command to a server.
type order []any

// refusing is a disturbance in which the server refuses calls now and then: one of breaks in turn, for a while, and then
// what heals it.
func refusing(name string, faults int, heals order, breaks ...[]order) disturbance {
	return disturbance{
		name: name, faults: faults,
		inject: func(t *testing.T, r *run, server *redistest.Server, _ *redistest.Proxy) {
			client := server.Client(t)
			for n := 0; r.more(); n++ {
				time.Sleep(300 * time.Millisecond)
				obey(t, client, breaks[n%len(breaks)]...)
				time.Sleep(300 * time.Millisecond)
				obey(t, client, heals)
				r.recovered(t, time.Now(), recoveryLimit, nil)
				r.injected(n + 1)
			}
		},
	}
}

func obey(t *testing.T, client *redis.Client, orders ...order) {
	t.Helper()
	for _, order := range orders {
		require.NoError(t, client.Do(context.Background(), order...).Err())
	}
}

// TestFullMemory: a Redis that is full refuses what needs memory, and changes nothing by halves.
func TestFullMemory(t *testing.T) {
	report, found := linearizability(t, binary, refusing("out of memory", 8,
		order{"CONFIG", "SET", "maxmemory", "0"}, []order{{"CONFIG", "SET", "maxmemory", "1"}}))
	require.Nil(t, found)
	require.Empty(t, report.Violations)
	require.Positive(t, report.Refused)
	require.Zero(t, report.Unknown, "a refusal is certain")
}

// TestRightsTakenAway: a user that loses a right in the middle of its work leaves no link half-made. The calls that find
// out can't tell what has become of them; after them no mutation is sent.
func TestRightsTakenAway(t *testing.T) {
	const clients = 8
	var breaks [][]order
	for _, command := range []string{"-hset", "-pexpireat", "-persist", "-hdel", "-evalsha"} {
		breaks = append(breaks, []order{{"ACL", "SETUSER", "default", command}})
	}
	report, found := linearizability(t, binary, refusing("rights taken away", 10,
		order{"ACL", "SETUSER", "default", "+@all"}, breaks...))
	require.Nil(t, found)
	require.Empty(t, report.Violations)
	require.Positive(t, report.Refused)
	require.LessOrEqual(t, report.Unknown, report.Faults*clients, "at most the calls that were under way")
}

// TestPasswordChanged: a Redis that lets podlink no longer in has carried out nothing.
func TestPasswordChanged(t *testing.T) {
	report, found := linearizability(t, binary, refusing("password changed", 6,
		order{"CONFIG", "SET", "requirepass", ""},
		// Who is in stays in, so everybody has to come in anew.
		[]order{{"CONFIG", "SET", "requirepass", "another"}, {"CLIENT", "KILL", "TYPE", "normal"}}))
	require.Nil(t, found)
	require.Empty(t, report.Violations)
	require.Positive(t, report.Refused)
}

// TestEvictionTurnedOn: a Redis that begins to evict makes podlink not ready, and one that stops ready again.
func TestEvictionTurnedOn(t *testing.T) {
	server := redistest.Start(t)
	podlink := start(t, binary, 1, podlinktest.OnRedis("standalone", server.Addr())...)[0]
	client := server.Client(t)
	report := &Report{Name: "eviction turned on", wantOperations: 20, wantFaults: 5}
	for range 5 {
		for _, policy := range []string{"allkeys-lru", "volatile-ttl"} {
			obey(t, client, order{"CONFIG", "SET", "maxmemory-policy", policy})
			status, reason := podlink.Ready(t)
			require.Equal(t, http.StatusServiceUnavailable, status)
			require.Contains(t, reason, policy)
			obey(t, client, order{"CONFIG", "SET", "maxmemory-policy", "noeviction"})
			status, _ = podlink.Ready(t)
			require.Equal(t, http.StatusOK, status)
			report.Operations += 2
			report.Acknowledged += 2
			report.Faults++
		}
	}
	report.publish(t)
}
