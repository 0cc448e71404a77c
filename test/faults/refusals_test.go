//go:build faults

package faults

import (
	"context"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	podlinktest "podlink/test/kit/podlink"
	redistest "podlink/test/kit/redis"
)

// command is a command to a server, with its arguments.
type command []any

// refusing is a disturbance by a server that refuses calls: it applies each of breaks in turn, for a while, and then heals.
func refusing(name string, faults int, heals command, breaks ...[]command) disturbance {
	return disturbance{
		name: name, faults: faults,
		inject: func(t *testing.T, r *run, server *redistest.Server, _ *redistest.Proxy) {
			client := server.Client(t)
			for n := 0; r.more(); n++ {
				time.Sleep(300 * time.Millisecond)
				do(t, client, breaks[n%len(breaks)]...)
				time.Sleep(300 * time.Millisecond)
				do(t, client, heals)
				r.recovered(t, time.Now(), recoveryTimeout, nil)
				r.injected(n + 1)
			}
		},
	}
}

func do(t *testing.T, client *redis.Client, commands ...command) {
	t.Helper()
	for _, command := range commands {
		require.NoError(t, client.Do(context.Background(), command...).Err())
	}
}

// TestFullMemory: a full Redis refuses commands that need memory, and executes no script halfway.
func TestFullMemory(t *testing.T) {
	report, found := linearizability(t, binary, refusing("out of memory", 8,
		command{"CONFIG", "SET", "maxmemory", "0"}, []command{{"CONFIG", "SET", "maxmemory", "1"}}))
	require.Nil(t, found)
	require.Empty(t, report.Violations)
	require.Positive(t, report.Refused)
	require.Zero(t, report.Unknown, "a refusal is certain")
}

// TestRightsTakenAway: when podlink's user loses a right during a script, no link is left half-written. The calls in flight
// have an unknown outcome; after them no mutation is sent.
func TestRightsTakenAway(t *testing.T) {
	const clients = 8
	var breaks [][]command
	for _, right := range []string{"-hset", "-pexpireat", "-persist", "-hdel", "-evalsha"} {
		breaks = append(breaks, []command{{"ACL", "SETUSER", "default", right}})
	}
	report, found := linearizability(t, binary, refusing("rights taken away", 10,
		command{"ACL", "SETUSER", "default", "+@all"}, breaks...))
	require.Nil(t, found)
	require.Empty(t, report.Violations)
	require.Positive(t, report.Refused)
	require.LessOrEqual(t, report.Unknown, report.Faults*clients, "at most the calls in flight")
}

// TestPasswordChanged: a Redis that refuses podlink's password has executed nothing.
func TestPasswordChanged(t *testing.T) {
	report, found := linearizability(t, binary, refusing("password changed", 6,
		command{"CONFIG", "SET", "requirepass", ""},
		// Open connections stay authenticated, so kill them.
		[]command{{"CONFIG", "SET", "requirepass", "another"}, {"CLIENT", "KILL", "TYPE", "normal"}}))
	require.Nil(t, found)
	require.Empty(t, report.Violations)
	require.Positive(t, report.Refused)
}

// TestEvictionTurnedOn: podlink is not ready while Redis has an eviction policy.
func TestEvictionTurnedOn(t *testing.T) {
	server := redistest.Start(t)
	podlink := start(t, binary, 1, podlinktest.OnRedis("standalone", server.Addr())...)[0]
	client := server.Client(t)
	report := &Report{Name: "eviction turned on", wantOperations: 12, wantFaults: 5}
	// Podlink checks its store each second.
	becomes := func(status int, reason string) {
		require.Eventually(t, func() bool {
			got, why := podlink.Ready(t)
			return got == status && strings.Contains(why, reason)
		}, 20*time.Second, 50*time.Millisecond, "%d %s", status, reason)
	}
	for range 3 {
		for _, policy := range []string{"allkeys-lru", "volatile-ttl"} {
			do(t, client, command{"CONFIG", "SET", "maxmemory-policy", policy})
			becomes(http.StatusServiceUnavailable, policy)
			do(t, client, command{"CONFIG", "SET", "maxmemory-policy", "noeviction"})
			becomes(http.StatusOK, "")
			report.Operations += 2
			report.Acknowledged += 2
			report.Faults++
		}
	}
	report.publish(t)
}
