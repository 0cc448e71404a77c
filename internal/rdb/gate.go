package rdb

import (
	"context"
	"crypto/rand"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"
)

// retestInterval is the minimum time between two self-tests that are run by calls.
const retestInterval = time.Second

// gate blocks mutations while scripts may stop half-way: it closes when the ACL has stopped one, and opens again once the
// self-test passes. It also remembers whether the current servers have passed the self-test.
type gate struct {
	test func(context.Context) error

	sem    chan struct{} // held while a self-test runs
	passed atomic.Bool
	closed atomic.Bool // set when a script was stopped half-way

	// The last self-test and its result; guarded by sem.
	tested time.Time
	result error
}

func newGate(test func(context.Context) error) *gate {
	return &gate{test: test, sem: make(chan struct{}, 1)}
}

// check runs the self-test unless it has already passed.
func (g *gate) check(ctx context.Context) error { return g.checkWithin(ctx, 0) }

// admit returns nil if the gate is open, or if the self-test opens it.
func (g *gate) admit(ctx context.Context) error {
	if !g.closed.Load() {
		return nil
	}
	return g.checkWithin(ctx, retestInterval)
}

// checkWithin is like check, but if the last self-test failed less than age ago, it returns that failure without testing
// again.
func (g *gate) checkWithin(ctx context.Context, age time.Duration) error {
	if g.passed.Load() {
		return nil
	}
	select {
	case g.sem <- struct{}{}:
		defer func() { <-g.sem }()
	case <-ctx.Done():
		return fmt.Errorf("the self-test is still running: %w", ctx.Err())
	}
	if g.passed.Load() {
		return nil // The self-test of another caller has passed meanwhile.
	}
	if g.result != nil && time.Since(g.tested) < age {
		return g.result
	}
	g.result = g.test(ctx)
	g.tested = time.Now()
	if g.result == nil {
		g.closed.Store(false)
		g.passed.Store(true)
	}
	return g.result
}

// close makes the gate refuse mutations until the self-test passes.
func (g *gate) close() {
	g.passed.Store(false)
	g.closed.Store(true)
}

// reset makes the next check run the self-test, because it may reach another server.
func (g *gate) reset() { g.passed.Store(false) }

// SelfTest is the check that a store must pass to be ready: it runs every script, and every Redis command in them. A
// command that the ACL denies would stop a script half-way, and that only shows when it runs.
type SelfTest struct {
	Scripts []*Script // to load into the script cache of every primary
	Steps   []SelfTestStep
	// Key returns a key of the given kind that is reserved for the self-test with this id.
	Key func(kind, id string) string
}

// SelfTestStep is a run of one script and the status it must reply. Steps with scripts of one key kind share a key.
type SelfTestStep struct {
	Script *Script
	Args   []any
	Status string
}

// cleanupTimeout is the part of the self-test's timeout that is reserved for removing its keys.
const cleanupTimeout = 250 * time.Millisecond

// selfTester runs a SelfTest.
type selfTester struct {
	SelfTest
	client *client
	runner *Runner
}

func (t selfTester) run(ctx context.Context) error {
	if err := t.load(ctx); err != nil {
		return err
	}
	if err := t.runSteps(ctx); err != nil {
		return err
	}
	if t.runner.replication.replicas == 0 {
		return nil
	}
	return t.client.eachPrimary(ctx, func(ctx context.Context, server *redis.Client) error {
		// This only checks the permission: replicas that lag are reported by the mutations.
		if err := server.Do(ctx, "wait", 0, 1).Err(); err != nil {
			return fmt.Errorf("self-test: WAIT: %w", err)
		}
		return nil
	})
}

// load loads every script into the script cache of every primary.
func (t selfTester) load(ctx context.Context) error {
	return t.client.eachPrimary(ctx, func(ctx context.Context, server *redis.Client) error {
		for _, script := range t.Scripts {
			if err := server.ScriptLoad(ctx, script.source).Err(); err != nil {
				return fmt.Errorf("script %s can't be loaded: %w", script.Name, err)
			}
		}
		return nil
	})
}

// runSteps runs the steps on keys that nothing else uses, and removes the keys.
func (t selfTester) runSteps(ctx context.Context) (err error) {
	id := rand.Text()
	whole := ctx
	if deadline, ok := ctx.Deadline(); ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithDeadline(ctx, deadline.Add(-cleanupTimeout))
		defer cancel()
	}
	defer func() {
		// Even after a timeout or a cancellation, so that the self-test leaves no key behind.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(whole), cleanupTimeout)
		defer cancel()
		if failure := t.removeKeys(ctx, id); err == nil {
			err = failure
		}
	}()
	for _, step := range t.Steps {
		reply, err := t.runner.evaluate(ctx, step.Script.unconfirmed(), t.Key(step.Script.KeyKind, id), step.Args)
		if err != nil {
			return fmt.Errorf("self-test: %w", err)
		}
		if reply.Status() != step.Status {
			return fmt.Errorf("self-test: %s answered %s instead of %s", step.Script.Name, reply.Status(), step.Status)
		}
	}
	return nil
}

// removeKeys removes the key of every kind and returns the first error.
func (t selfTester) removeKeys(ctx context.Context, id string) (err error) {
	removed := make(map[string]bool)
	for _, step := range t.Steps {
		kind := step.Script.KeyKind
		if removed[kind] {
			continue
		}
		removed[kind] = true
		if failure := t.client.driver.Del(ctx, t.Key(kind, id)).Err(); failure != nil && err == nil {
			err = fmt.Errorf("the keys of the self-test can't be removed: %w", failure)
		}
	}
	return err
}
