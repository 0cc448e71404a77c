package data

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"podlink/internal/biz"
	redistest "podlink/test/kit/redis"
)

// scriptCommands returns the Redis commands of the scripts, as in ACL rules.
func scriptCommands() []string {
	used := make(map[string]bool)
	for _, sc := range scripts {
		for _, command := range callees(withoutComments(sc.Source())) {
			used[strings.ToLower(command)] = true
		}
	}
	return sorted(used)
}

// setRule sets an ACL rule of podlink's user.
func setRule(t *testing.T, direct *redis.Client, rule string) {
	t.Helper()
	require.NoError(t, direct.Do(context.Background(), "ACL", "SETUSER", "podlink", rule).Err())
}

// initialStates are states before a call: the populated link is persistent, temporary or missing, with or without another
// link of the uid; and the pod has a reservation.
var initialStates = map[string]func(ctx context.Context, s *testStore) error{
	"nothing":             func(context.Context, *testStore) error { return nil },
	"persistent":          func(ctx context.Context, s *testStore) error { return makeState(ctx, s, biz.Forever, 0) },
	"temporary":           func(ctx context.Context, s *testStore) error { return makeState(ctx, s, 300, 0) },
	"among persistent":    func(ctx context.Context, s *testStore) error { return makeState(ctx, s, 300, biz.Forever) },
	"among temporary":     func(ctx context.Context, s *testStore) error { return makeState(ctx, s, 300, 200) },
	"persistent, another": func(ctx context.Context, s *testStore) error { return makeState(ctx, s, biz.Forever, 200) },
}

// makeState stores the populated link and, unless other is 0, one of another service; a report; and a workload.
func makeState(ctx context.Context, s *testStore, ttl, other biz.TTL) error {
	key := populated.link()
	if err := second(reposOf(s).Links.Set(ctx, key, populated.pod, ttl, biz.SetTerms{})); err != nil {
		return err
	}
	if other != 0 {
		key.Service = "chat"
		if err := second(reposOf(s).Links.Set(ctx, key, 7, other, biz.SetTerms{})); err != nil {
			return err
		}
	}
	if err := s.writeMembers(ctx, countedPod()); err != nil {
		return err
	}
	return second(reposOf(s).Workloads.Set(ctx, game, "down"))
}

// visibleState returns the part of the store's content that replies depend on: the fields, without clock values, and the keys
// that would expire too early. A key that outlives its links has no effect.
func visibleState(t *testing.T, store *testStore) map[string]string {
	t.Helper()
	all := make(map[string]string)
	for key, content := range dump(t, store) {
		fields := content.value.(map[string]string)
		if content.kind == "zset" {
			for member, score := range fields {
				if isTime(score) {
					score = "#"
				}
				all[strings.TrimPrefix(key, string(store.keys))+" "+withoutHeard(clockPattern.ReplaceAllString(member, "#"))] = score
			}
			continue
		}
		for field, value := range fields {
			field = clockPattern.ReplaceAllString(field, "#")
			all[strings.TrimPrefix(key, string(store.keys))+" "+field] = clockPattern.ReplaceAllString(value, "#")
		}
		persistent := slices.ContainsFunc(slices.Collect(maps.Values(fields)), func(value string) bool {
			return strings.HasSuffix(value, " 0")
		})
		if content.hasTTL && persistent {
			all[key] = "expires with its TTL"
		}
	}
	return all
}

// TestDeniedCommand: a script that the ACL stops leaves the state before or after the script, and nothing in between.
func TestDeniedCommand(t *testing.T) {
	parallel(t)
	server := redistest.Start(t, aclUser...)
	direct := server.Client(t)
	admin := openStore(t, onServer(server.Addr()), withLongTimeouts)
	clean := func() { require.NoError(t, direct.FlushDB(t.Context()).Err()) }
	stopped := 0
	for before, prepare := range initialStates {
		for _, call := range repoCalls {
			if !call.mutation() {
				continue
			}
			clean()
			require.NoError(t, prepare(t.Context(), admin))
			found := visibleState(t, admin)
			require.True(t, isAnswer(call.do(t.Context(), reposOf(admin), populated)), call.name)
			left := visibleState(t, admin)
			store := openStore(t, onServer(server.Addr()), withUser, withLongTimeouts, prefix(string(admin.keys)))
			for _, command := range scriptCommands() {
				name := before + "/" + call.name + "/" + command
				clean()
				require.NoError(t, prepare(t.Context(), admin))
				setRule(t, direct, "-"+command)
				err := call.do(t.Context(), reposOf(store), populated)
				setRule(t, direct, "+"+command)
				got := visibleState(t, admin)
				if isAnswer(err) {
					require.Equal(t, left, got, name)
					continue
				}
				stopped++
				// The gate of the old one is closed.
				store = openStore(t, onServer(server.Addr()), withUser, withLongTimeouts, prefix(string(admin.keys)))
				require.ErrorIs(t, err, biz.ErrOutcomeUnknown, name)
				if !maps.Equal(found, got) {
					require.Equal(t, left, got, name)
				}
			}
		}
	}
	require.Greater(t, stopped, 200, "scripts that were stopped")
}

// TestRevokedPermission: when the user loses a permission at run time, mutations in flight may have an unknown outcome.
// From then on mutations are refused until the permission is back; reads still work, and the check returns the cause.
func TestRevokedPermission(t *testing.T) {
	t.Parallel()
	for _, command := range []string{"hset", "hdel", "persist", "pexpireat", "zadd", "zrem"} {
		t.Run(command, func(t *testing.T) {
			parallel(t)
			server := redistest.Start(t, aclUser...)
			direct := server.Client(t)
			store := openStore(t, onServer(server.Addr()), withUser, withLongTimeouts)
			populate(t, store)
			waitReady(t, store)

			const callers, timeout = 8, 20 * time.Second
			var done, unknown atomic.Int64
			var calls sync.WaitGroup
			begin := time.Now()
			for range callers {
				calls.Go(func() {
					for refused := false; !refused && time.Since(begin) < timeout; {
						for _, call := range repoCalls {
							err := call.do(context.Background(), reposOf(store), populated)
							done.Add(1)
							if call.mutation() && errors.Is(err, biz.ErrOutcomeUnknown) {
								unknown.Add(1)
							}
							refused = refused || call.mutation() && errors.Is(err, biz.ErrStoreUnavailable)
						}
					}
				})
			}
			require.Eventually(t, func() bool { return done.Load() > 100 }, timeout, time.Millisecond)
			setRule(t, direct, "-"+command)
			calls.Wait()
			require.Positive(t, unknown.Load())
			require.LessOrEqual(t, unknown.Load(), int64(callers), "at most those in flight")

			before := visibleState(t, openStore(t, onServer(server.Addr()), prefix(string(store.keys))))
			for _, call := range repoCalls {
				err := call.do(t.Context(), reposOf(store), populated)
				if call.mutation() {
					require.ErrorIs(t, err, biz.ErrStoreUnavailable, call.name)
					require.NotErrorIs(t, err, biz.ErrOutcomeUnknown, call.name)
				} else {
					require.True(t, isAnswer(err), "%s: %v", call.name, err)
				}
			}
			require.Equal(t, before, visibleState(t, openStore(t, onServer(server.Addr()), prefix(string(store.keys)))))
			require.ErrorContains(t, store.Check(t.Context()), "self-test")

			setRule(t, direct, "+"+command)
			restored := time.Now()
			for _, call := range repoCalls {
				require.Eventually(t, func() bool { return isAnswer(call.do(t.Context(), reposOf(store), populated)) },
					recoveryTimeout, time.Millisecond, call.name)
			}
			require.Less(t, time.Since(restored), time.Second+3*time.Second)
			waitReady(t, store)
		})
	}
}
