package rdb

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

// retestInterval is the minimum time between two self-tests that are run by calls.
const retestInterval = time.Second

// gate blocks mutations until the store's layout is known, and while scripts may stop half-way: it closes when the ACL has
// stopped one, and opens again once the self-test passes. It also remembers whether the current servers have passed the
// self-test.
type gate struct {
	test   func(context.Context) error
	layout func(context.Context) error

	sem     chan struct{} // held while a self-test or a look at the layout runs
	known   atomic.Bool   // the layout of the current servers is known
	passed  atomic.Bool
	closed  atomic.Bool // mutations are refused
	aborted atomic.Bool // a script was stopped half-way

	// The last failure, and when it was; guarded by sem.
	tested time.Time
	result error
}

// newGate returns a gate that is closed until layout returns nil.
func newGate(test, layout func(context.Context) error) *gate {
	g := &gate{test: test, layout: layout, sem: make(chan struct{}, 1)}
	g.closed.Store(true)
	return g
}

// check runs the self-test unless it has already passed.
func (g *gate) check(ctx context.Context) error {
	if g.passed.Load() {
		return nil
	}
	return g.exclusively(ctx, func() error {
		if g.passed.Load() {
			return nil // The self-test of another caller has passed meanwhile.
		}
		return g.pass(ctx)
	})
}

// admit returns nil if the gate is open, or if a look at the layout or the self-test opens it. If the last one failed less
// than retestInterval ago, it returns that failure.
func (g *gate) admit(ctx context.Context) error {
	if !g.closed.Load() {
		return nil
	}
	return g.exclusively(ctx, func() error {
		switch {
		case !g.closed.Load():
			return nil
		case g.result != nil && time.Since(g.tested) < retestInterval:
			return g.result
		case g.aborted.Load():
			return g.pass(ctx)
		}
		err := g.know(ctx)
		if err == nil {
			g.closed.Store(g.aborted.Load())
		}
		g.result, g.tested = err, time.Now()
		return err
	})
}

// exclusively calls do while nobody else tests.
func (g *gate) exclusively(ctx context.Context, do func() error) error {
	select {
	case g.sem <- struct{}{}:
		defer func() { <-g.sem }()
		return do()
	case <-ctx.Done():
		return fmt.Errorf("the self-test is still running: %w", ctx.Err())
	}
}

// pass runs the self-test, and opens the gate if it passes. A failed one does not close it.
func (g *gate) pass(ctx context.Context) error {
	err := g.know(ctx)
	if err == nil {
		g.closed.Store(g.aborted.Load())
		err = g.test(ctx)
	}
	if err == nil {
		g.aborted.Store(false)
		g.closed.Store(false)
		g.passed.Store(true)
	}
	g.result, g.tested = err, time.Now()
	return err
}

// know verifies the layout unless it is known. The gate closes if it is another one.
func (g *gate) know(ctx context.Context) error {
	if g.known.Load() {
		return nil
	}
	err := g.layout(ctx)
	g.known.Store(err == nil)
	if errors.Is(err, ErrLayout) {
		g.closed.Store(true)
	}
	return err
}

// close makes the gate refuse mutations until the self-test passes.
func (g *gate) close() {
	g.passed.Store(false)
	g.aborted.Store(true)
	g.closed.Store(true)
}

// reset makes the next check look at the layout and run the self-test, because it may reach another server.
func (g *gate) reset() {
	g.known.Store(false)
	g.passed.Store(false)
}

// SelfTest is the check that a store must pass to be ready: it runs every script, and every Redis command in them. A
// command that the ACL denies would stop a script half-way, and that only shows when it runs.
type SelfTest struct {
	Scripts []*Script // to load into the script cache of every primary
	Steps   []SelfTestStep
	// Key returns a key of the given kind that is reserved for the self-test with this id.
	Key func(kind, id string) string
	// Layout is the layout that the scripts read and write.
	Layout Layout
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
	client   *client
	runner   *Runner
	options  Options
	warnings *warnings
}

func (t selfTester) run(ctx context.Context) error {
	if err := t.load(ctx); err != nil {
		return err
	}
	if err := t.runSteps(ctx); err != nil {
		return err
	}
	t.checkPassword(ctx)
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

// checkPassword warns if a server has no password although podlink has one: it accepts any, from everybody.
func (t selfTester) checkPassword(ctx context.Context) {
	if t.options.Password == "" || t.options.Username != "" || t.options.Embedded {
		return
	}
	_ = t.client.eachPrimary(ctx, func(ctx context.Context, server *redis.Client) error {
		err := server.Do(ctx, "auth", t.options.Password).Err()
		if err != nil && strings.Contains(err.Error(), "called without any password configured") {
			t.warnings.warn("redis has no password, so it serves everybody who reaches it; data.redis.password is set, but not checked")
		}
		return nil
	})
}

// load loads every script into the script cache of every primary. A user without the right can do without: a script that
// is not cached is sent as a whole, and then it is.
func (t selfTester) load(ctx context.Context) error {
	return t.client.eachPrimary(ctx, func(ctx context.Context, server *redis.Client) error {
		for _, script := range t.Scripts {
			err := server.ScriptLoad(ctx, script.source).Err()
			if denied(err) {
				t.warnings.warn("redis does not let podlink use SCRIPT LOAD, so the first call of each script takes longer")
				return nil
			}
			if err != nil {
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
