package data

import (
	"bufio"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
)

// selfTest remembers that every script has passed on the store that answers now.
type selfTest struct {
	mu sync.Mutex
	ok bool
}

// passed runs the self-test unless it has passed already.
func (t *selfTest) passed(ctx context.Context, s *Store) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.ok {
		return nil
	}
	if err := s.loadScripts(ctx); err != nil {
		return err
	}
	if err := s.testScripts(ctx); err != nil {
		return err
	}
	t.ok = true
	return nil
}

func (t *selfTest) forget() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.ok = false
}

// loadScripts puts every script into the script cache, in a cluster on every primary.
func (s *Store) loadScripts(ctx context.Context) error {
	load := func(ctx context.Context, client redis.Cmdable) error {
		for _, sc := range scripts {
			if err := client.ScriptLoad(ctx, sc.source).Err(); err != nil {
				return fmt.Errorf("script %s can't be loaded: %w", sc.name, err)
			}
		}
		return nil
	}
	if cluster, ok := s.client.(*redis.ClusterClient); ok {
		return cluster.ForEachMaster(ctx, func(ctx context.Context, node *redis.Client) error { return load(ctx, node) })
	}
	return load(ctx, s.client)
}

// selfTestStep runs one script and expects a status.
type selfTestStep struct {
	script *script
	kind   string // of the key
	args   []any
	want   string
}

// selfTestSteps run every script, and every Redis command in them: a command that the ACL denies would stop a script
// half-way, which only shows when it runs.
var selfTestSteps = []selfTestStep{
	{scriptLinkIfAbsent, "link", []any{"a", 1, -1}, "LINKED"},
	{scriptTrySetLink, "link", []any{"a", 2, -1}, "REFUSED"},
	{scriptGetPersist, "link", []any{"a"}, "FOUND"},
	{scriptLink, "link", []any{"a", 2, 60, ""}, "LINKED"},
	{scriptTrySetLink, "link", []any{"b", 2, 60}, "LINKED"},
	{scriptGetLink, "link", []any{"a"}, "FOUND"},
	{scriptGetServices, "link", nil, "LINKS"},
	{scriptComputeLink, "link", []any{"a", 3, -1, 0}, "EXISTING"},
	{scriptRemoveWithID, "link", []any{"a", 0, 9}, "ABSENT"},
	{scriptRemoveLink, "link", []any{"a", 60, ""}, "REMOVED"},
	{scriptRemoveLink, "link", []any{"a", 0, ""}, "REMOVED"},
	{scriptRemoveWithID, "link", []any{"b", 0, 2}, "REMOVED"},
	{scriptSetState, "pods", []any{1, "self-test", 0, 0, 60}, "STORED"},
	{scriptReservePod, "pods", []any{-1}, "RESERVED"},
	{scriptReleasePod, "pods", []any{1, 0}, "STALE"},
	{scriptGetService, "pods", nil, "PODS"},
	{scriptGetServicePod, "pods", []any{1}, "FOUND"},
	{scriptRemoveState, "pods", []any{1}, "REMOVED"},
	{scriptSetWorkload, "workload", []any{"self-test"}, "STORED"},
}

// testScripts runs the steps on keys of their own and removes these.
func (s *Store) testScripts(ctx context.Context) (err error) {
	id := rand.Text()
	defer func() {
		// Also when the time is up: nothing of the self-test shall stay behind.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		for _, kind := range []string{"link", "pods", "workload"} {
			if failure := s.client.Del(ctx, s.keys.selfTest(kind, id)).Err(); failure != nil && err == nil {
				err = fmt.Errorf("the keys of the self-test can't be removed: %w", failure)
			}
		}
	}()
	for _, step := range selfTestSteps {
		reply, err := s.run(ctx, step.script, s.keys.selfTest(step.kind, id), step.args...)
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

// checkEviction reads the policy from INFO, which managed Redis allows where it denies CONFIG. In a cluster it asks
// every primary.
func (s *Store) checkEviction(ctx context.Context) error {
	check := func(ctx context.Context, client redis.Cmdable) error {
		info, err := client.Info(ctx, "memory").Result()
		if err != nil {
			return fmt.Errorf("redis does not tell its maxmemory-policy: %w", err)
		}
		if policy := infoValue(info, "maxmemory_policy"); policy != "noeviction" {
			return fmt.Errorf("%w; it is %q", errEviction, policy)
		}
		return nil
	}
	if cluster, ok := s.client.(*redis.ClusterClient); ok {
		return cluster.ForEachMaster(ctx, func(ctx context.Context, node *redis.Client) error { return check(ctx, node) })
	}
	return check(ctx, s.client)
}

// infoValue returns a value of INFO's reply.
func infoValue(info, key string) string {
	lines := bufio.NewScanner(strings.NewReader(info))
	for lines.Scan() {
		if value, ok := strings.CutPrefix(lines.Text(), key+":"); ok {
			return strings.TrimSpace(value)
		}
	}
	return ""
}
