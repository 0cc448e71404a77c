package data

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"
)

// retestInterval is how often at most calls test anew what may stop scripts half-way.
const retestInterval = time.Second

// selfTest remembers that every script has passed on the store that answers now.
type selfTest struct {
	turn chan struct{} // holds a token while somebody tests
	ok   atomic.Bool
	// suspected is set when a script was stopped half-way: until the self-test passes, mutations are not sent at all.
	suspected atomic.Bool

	// The last test and what came of it; guarded by turn.
	tested time.Time
	result error
}

func newSelfTest() selfTest { return selfTest{turn: make(chan struct{}, 1)} }

// passed runs the self-test unless it has passed already.
func (t *selfTest) passed(ctx context.Context, s *Store) error { return t.passedWithin(ctx, s, 0) }

// passedWithin is passed, but content with a result of the last time that is no older than age.
func (t *selfTest) passedWithin(ctx context.Context, s *Store, age time.Duration) error {
	if t.ok.Load() {
		return nil
	}
	select {
	case t.turn <- struct{}{}:
		defer func() { <-t.turn }()
	case <-ctx.Done():
		return fmt.Errorf("the self-test goes on: %w", ctx.Err())
	}
	if t.ok.Load() {
		return nil // Somebody else has tested meanwhile.
	}
	if t.result != nil && time.Since(t.tested) < age {
		return t.result
	}
	t.result = s.test(ctx)
	t.tested = time.Now()
	if t.result == nil {
		t.suspected.Store(false)
		t.ok.Store(true)
	}
	return t.result
}

// gate refuses mutations after a script was stopped half-way, until the self-test has passed again.
func (t *selfTest) gate(ctx context.Context, s *Store) error {
	if !t.suspected.Load() {
		return nil
	}
	return t.passedWithin(ctx, s, retestInterval)
}

// suspect closes the gate.
func (t *selfTest) suspect() {
	t.ok.Store(false)
	t.suspected.Store(true)
}

func (t *selfTest) forget() { t.ok.Store(false) }

// test loads every script and runs it.
func (s *Store) test(ctx context.Context) error {
	if err := s.loadScripts(ctx); err != nil {
		return err
	}
	if err := s.testScripts(ctx); err != nil {
		return err
	}
	if s.confirm.replicas == 0 {
		return nil
	}
	return s.onPrimaries(ctx, func(ctx context.Context, client *redis.Client) error {
		// For no replica at all: whether they follow is told by the answers of mutations.
		if err := client.Do(ctx, "wait", 0, 1).Err(); err != nil {
			return fmt.Errorf("self-test: WAIT: %w", err)
		}
		return nil
	})
}

// loadScripts puts every script into the script cache, in a cluster on every primary.
func (s *Store) loadScripts(ctx context.Context) error {
	return s.onPrimaries(ctx, func(ctx context.Context, client *redis.Client) error {
		for _, sc := range scripts {
			if err := client.ScriptLoad(ctx, sc.source).Err(); err != nil {
				return fmt.Errorf("script %s can't be loaded: %w", sc.name, err)
			}
		}
		return nil
	})
}

// onPrimaries calls do with every server that takes writes: the one there is, or each primary of a cluster.
func (s *Store) onPrimaries(ctx context.Context, do func(context.Context, *redis.Client) error) error {
	switch client := s.client.(type) {
	case *cluster:
		return client.ForEachMaster(ctx, do)
	case *redis.Client:
		return do(ctx, client)
	default:
		return fmt.Errorf("no primaries of a %T", client)
	}
}

// selfTestStep runs one script and expects a status.
type selfTestStep struct {
	script *script
	args   []any
	want   string
}

// selfTestSteps run every script, and every Redis command in them: a command that the ACL denies would stop a script
// half-way, which only shows when it runs.
var selfTestSteps = []selfTestStep{
	{scriptSetIfAbsent, []any{"a", -1, 1}, "LINKED"},
	{scriptTrySetLink, []any{"a", -1, 2}, "REFUSED"},
	{scriptGetPersist, []any{"a"}, "FOUND"},
	{scriptSetLink, []any{"a", 60, 2}, "LINKED"},
	{scriptTrySetLink, []any{"b", 60, 2}, "LINKED"},
	{scriptGetLink, []any{"a"}, "FOUND"},
	{scriptGetServices, nil, "LINKS"},
	{scriptComputeLink, []any{"a", -1, 3, 0}, "EXISTING"},
	{scriptRemoveWithID, []any{"a", 0, 9}, "ABSENT"},
	{scriptRemoveLink, []any{"a", 60}, "REMOVED"},
	{scriptRemoveLink, []any{"a", 0}, "REMOVED"},
	{scriptRemoveWithID, []any{"b", 0, 2}, "REMOVED"},
	{scriptSetState, []any{1, "self-test", 0, 0, 60}, "STORED"},
	{scriptReservePod, []any{-1}, "RESERVED"},
	{scriptReleasePod, []any{1, 0}, "STALE"},
	{scriptGetService, nil, "PODS"},
	{scriptGetServicePod, []any{1}, "FOUND"},
	{scriptRemoveState, []any{1}, "REMOVED"},
	{scriptSetWorkload, []any{"self-test"}, "STORED"},
}

// cleanupLimit is what the self-test keeps of its time to remove its keys.
const cleanupLimit = 250 * time.Millisecond

// testScripts runs the steps on keys of their own and removes these.
func (s *Store) testScripts(ctx context.Context) (err error) {
	id := rand.Text()
	whole := ctx
	if deadline, ok := ctx.Deadline(); ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithDeadline(ctx, deadline.Add(-cleanupLimit))
		defer cancel()
	}
	defer func() {
		// Also when the time is up or the caller has left: nothing of the self-test shall stay behind.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(whole), cleanupLimit)
		defer cancel()
		for _, kind := range []string{keyLink, keyPods, keyWorkload} {
			if failure := s.client.Del(ctx, s.keys.selfTest(kind, id)).Err(); failure != nil && err == nil {
				err = fmt.Errorf("the keys of the self-test can't be removed: %w", failure)
			}
		}
	}()
	for _, step := range selfTestSteps {
		reply, err := s.execute(ctx, step.script.unconfirmed(), s.keys.selfTest(step.script.kind, id), step.args...)
		if err != nil {
			return fmt.Errorf("self-test: %w", err)
		}
		if reply.status() != step.want {
			return fmt.Errorf("self-test: %s answered %s instead of %s", step.script.name, reply.status(), step.want)
		}
	}
	return nil
}

// errEviction: Redis would drop links to make room, silently.
var errEviction = errors.New("the maxmemory-policy of redis must be noeviction, or data.redis.allow_eviction true: " +
	"an evicted link is a lost session")

// errReplica: writes go to a primary only.
var errReplica = errors.New("redis is a replica, and takes no writes")

// checkServer asks a server what only it knows of itself, and notes whether it may evict links. INFO says it, which managed Redis allows where it denies
// CONFIG. The embedded store has nothing to say.
func (s *Store) checkServer(ctx context.Context, client *redis.Client, evicts *atomic.Bool) error {
	if err := client.Ping(ctx).Err(); err != nil {
		s.selfTest.forget() // What answers next may be another server.
		return fmt.Errorf("redis does not answer: %w", err)
	}
	if s.durable == nil {
		return nil
	}
	role, err := askInfo(ctx, client, "replication", "role")
	if err != nil {
		return err
	}
	if role != "master" {
		s.selfTest.forget() // The primary that comes next is another server.
		return errReplica
	}
	policy, err := askInfo(ctx, client, "memory", "maxmemory_policy")
	if err != nil {
		return err
	}
	if policy == "noeviction" {
		return nil
	}
	evicts.Store(true)
	if !s.durable.GetAllowEviction() {
		return fmt.Errorf("%w; it is %q", errEviction, policy)
	}
	return nil
}

func askInfo(ctx context.Context, client *redis.Client, section, key string) (string, error) {
	info, err := client.Info(ctx, section).Result()
	if err != nil {
		return "", fmt.Errorf("redis does not answer INFO: %w", err)
	}
	return infoValue(info, key), nil
}

// infoValue returns a value of INFO's reply, "" without one.
func infoValue(info, key string) string {
	for line := range strings.Lines(info) {
		if value, ok := strings.CutPrefix(line, key+":"); ok {
			return strings.TrimSpace(value)
		}
	}
	return ""
}
