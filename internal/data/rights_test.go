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

// scriptCommands are the Redis commands that scripts use, as rules of the ACL.
func scriptCommands() []string {
	used := make(map[string]bool)
	for _, sc := range scripts {
		for _, command := range callees(withoutComments(sc.Source())) {
			used[strings.ToLower(command)] = true
		}
	}
	return sorted(used)
}

// allow sets a rule of the user that stores log in as.
func allow(t *testing.T, direct *redis.Client, rule string) {
	t.Helper()
	require.NoError(t, direct.Do(context.Background(), "ACL", "SETUSER", "podlink", rule).Err())
}

// initialStates are what a call may find: the populated link persistent, temporary or not at all, with and without others
// of the uid; and a pod with a link given out.
var initialStates = map[string]func(ctx context.Context, s *testStore) error{
	"nothing":             func(context.Context, *testStore) error { return nil },
	"persistent":          func(ctx context.Context, s *testStore) error { return makeState(ctx, s, biz.Forever, 0) },
	"temporary":           func(ctx context.Context, s *testStore) error { return makeState(ctx, s, 300, 0) },
	"among persistent":    func(ctx context.Context, s *testStore) error { return makeState(ctx, s, 300, biz.Forever) },
	"among temporary":     func(ctx context.Context, s *testStore) error { return makeState(ctx, s, 300, 200) },
	"persistent, another": func(ctx context.Context, s *testStore) error { return makeState(ctx, s, biz.Forever, 200) },
}

// makeState makes the populated link and, unless other is 0, one of another service; a report; and a workload.
func makeState(ctx context.Context, s *testStore, ttl, other biz.TTL) error {
	key := populated.link()
	if err := second(reposOf(s).Links.Set(ctx, key, populated.pod, ttl, nil)); err != nil {
		return err
	}
	if other != 0 {
		key.Service = "chat"
		if err := second(reposOf(s).Links.Set(ctx, key, 7, other, nil)); err != nil {
			return err
		}
	}
	if err := s.client.HSet(ctx, s.keys.pods(game), "1", "0 1 0 -1 1700000000000 up").Err(); err != nil {
		return err
	}
	return second(reposOf(s).Workloads.Set(ctx, game, "down"))
}

// visibleState is all that answers can tell of the store: the fields, without what comes from a clock, and which keys go before
// their time. That a key without links stays for longer shows nowhere.
func visibleState(t *testing.T, store *testStore) map[string]string {
	t.Helper()
	all := make(map[string]string)
	for key, content := range dump(t, store) {
		fields := content.value.(map[string]string)
		if len(fields) > 1 {
			delete(fields, "reported") // It tells something only when it is the last one.
		}
		for field, value := range fields {
			all[strings.TrimPrefix(key, string(store.keys))+" "+field] = clockPattern.ReplaceAllString(value, "#")
		}
		persistent := slices.ContainsFunc(slices.Collect(maps.Values(fields)), func(value string) bool {
			return strings.HasSuffix(value, " 0")
		})
		if content.hasTTL && persistent {
			all[key] = "goes with its TTL"
		}
	}
	return all
}

// TestDeniedCommand: a script that the ACL stops leaves what it has found, or what it was to leave, and nothing between.
func TestDeniedCommand(t *testing.T) {
	parallel(t)
	server := redistest.Start(t, limitedUser...)
	direct := server.Client(t)
	admin := openStore(t, onServer(server.Addr()), longTimeouts)
	clean := func() { require.NoError(t, direct.FlushDB(t.Context()).Err()) }
	stopped := 0
	for before, stand := range initialStates {
		for _, call := range repoCalls {
			if !call.mutation() {
				continue
			}
			clean()
			require.NoError(t, stand(t.Context(), admin))
			found := visibleState(t, admin)
			require.NoError(t, call.do(t.Context(), reposOf(admin), populated))
			left := visibleState(t, admin)
			store := openStore(t, onServer(server.Addr()), withUser, longTimeouts, prefix(string(admin.keys)))
			for _, command := range scriptCommands() {
				name := before + "/" + call.name + "/" + command
				clean()
				require.NoError(t, stand(t.Context(), admin))
				allow(t, direct, "-"+command)
				err := call.do(t.Context(), reposOf(store), populated)
				allow(t, direct, "+"+command)
				got := visibleState(t, admin)
				if err == nil {
					require.Equal(t, left, got, name)
					continue
				}
				stopped++
				// This one waits until its self-test has passed again.
				store = openStore(t, onServer(server.Addr()), withUser, longTimeouts, prefix(string(admin.keys)))
				require.ErrorIs(t, err, biz.ErrOutcomeUnknown, name)
				if !maps.Equal(found, got) {
					require.Equal(t, left, got, name)
				}
			}
		}
	}
	require.Greater(t, stopped, 200, "scripts that were stopped")
}

// TestRightTakenAway: when a user loses a right at run time, the calls under way may not know what became of them. From
// then on mutations are refused, until the right is back; reads go on, and the check says why.
func TestRightTakenAway(t *testing.T) {
	t.Parallel()
	for _, command := range []string{"hset", "hdel", "persist", "pexpireat", "hlen"} {
		t.Run(command, func(t *testing.T) {
			parallel(t)
			server := redistest.Start(t, limitedUser...)
			direct := server.Client(t)
			store := openStore(t, onServer(server.Addr()), withUser, longTimeouts)
			populate(t, store)
			waitReady(t, store)

			const callers, patience = 8, 20 * time.Second
			var done, unknown atomic.Int64
			var calls sync.WaitGroup
			begin := time.Now()
			for range callers {
				calls.Go(func() {
					for refused := false; !refused && time.Since(begin) < patience; {
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
			require.Eventually(t, func() bool { return done.Load() > 100 }, patience, time.Millisecond)
			allow(t, direct, "-"+command)
			calls.Wait()
			require.Positive(t, unknown.Load())
			require.LessOrEqual(t, unknown.Load(), int64(callers), "no more than were under way")

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

			allow(t, direct, "+"+command)
			back := time.Now()
			for _, call := range repoCalls {
				require.Eventually(t, func() bool { return isAnswer(call.do(t.Context(), reposOf(store), populated)) },
					recoveryTimeout, time.Millisecond, call.name)
			}
			require.Less(t, time.Since(back), time.Second+3*time.Second)
			waitReady(t, store)
		})
	}
}
