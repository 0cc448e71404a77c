package rdb

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"
)

const (
	// probeTimeout is the timeout of a check by Start.
	probeTimeout = time.Second
	// probeInterval is the pause between two checks by Start.
	probeInterval = 5 * time.Second
)

// Health checks whether the store is ready, and keeps the last result for the log and the metrics.
type Health struct {
	client        *client
	gate          *gate
	log           Logger
	allowEviction bool
	embedded      bool

	once    sync.Once
	stopped chan struct{} // closed by Stop

	mu      sync.Mutex
	checked bool
	ready   bool

	mayEvict atomic.Bool // a server may evict keys, allowed or not
}

func newHealth(o Options, client *client, gate *gate) *Health {
	return &Health{
		client: client, gate: gate, log: o.Logger, allowEviction: o.AllowEviction, embedded: o.Embedded,
		stopped: make(chan struct{}),
	}
}

// Start checks the store every few seconds until Stop. So the scripts are loaded before the first request, and the log and
// the metrics show the store's health even if /readyz is never called. Start never fails: without its store podlink starts
// and is not ready. Start and Stop make Health a Kratos transport.Server, which starts in parallel with the listeners.
func (h *Health) Start(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		select {
		case <-h.stopped:
			cancel()
		case <-ctx.Done():
		}
	}()
	for {
		h.probe(ctx)
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(probeInterval):
		}
	}
}

// Stop ends Start. The connections are closed later, after the listeners.
func (h *Health) Stop(context.Context) error {
	h.once.Do(func() { close(h.stopped) })
	return nil
}

// probe runs one check; Check records its result.
func (h *Health) probe(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	_ = h.Check(ctx)
}

// Check returns nil if the store is ready: it answers, passes the self-test, accepts writes, and does not evict keys. The
// error's text is for operators. Check also records the result for the log and the metrics.
func (h *Health) Check(ctx context.Context) error {
	err := h.check(ctx)
	if !errors.Is(ctx.Err(), context.Canceled) { // A canceled check says nothing about the store.
		h.record(err)
	}
	return err
}

func (h *Health) check(ctx context.Context) error {
	if err := h.gate.check(ctx); err != nil {
		return err
	}
	var evicts atomic.Bool
	err := h.client.eachPrimary(ctx, func(ctx context.Context, server *redis.Client) error {
		return h.checkServer(ctx, server, &evicts)
	})
	if err == nil || evicts.Load() {
		h.mayEvict.Store(evicts.Load())
	}
	return err
}

// record logs a line when the store has become ready, or not ready.
func (h *Health) record(err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	first := !h.checked
	if !first && h.ready == (err == nil) {
		return
	}
	h.checked, h.ready = true, err == nil
	switch {
	case first && err == nil:
		h.log.Infof("the store is ready: every script passed its self-test")
	case first:
		h.log.Errorf("the store is not ready, podlink starts without it: %v", err)
	case err == nil:
		h.log.Warnf("the store is ready again")
	default:
		h.log.Errorf("the store is not ready: %v", err)
	}
}

// isReady reports whether the last check passed.
func (h *Health) isReady() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.ready
}

// errEviction is returned because Redis would silently evict links to free memory.
var errEviction = errors.New("the maxmemory-policy of redis must be noeviction, or data.redis.allow_eviction true: " +
	"an evicted link is a lost session")

var errReplica = errors.New("redis is a replica and accepts no writes")

// checkServer checks one server, and sets evicts if it may evict keys. It uses INFO, because managed Redis services deny
// CONFIG.
func (h *Health) checkServer(ctx context.Context, server *redis.Client, evicts *atomic.Bool) error {
	if err := server.Ping(ctx).Err(); err != nil {
		h.gate.reset() // Another server may answer next.
		return fmt.Errorf("redis does not answer: %w", err)
	}
	if h.embedded {
		return nil
	}
	role, err := serverInfo(ctx, server, "replication", "role")
	if err != nil {
		return err
	}
	if role != "master" {
		h.gate.reset() // The new primary is another server.
		return errReplica
	}
	policy, err := serverInfo(ctx, server, "memory", "maxmemory_policy")
	if err != nil {
		return err
	}
	if policy == "noeviction" {
		return nil
	}
	evicts.Store(true)
	if !h.allowEviction {
		return fmt.Errorf("%w; it is %q", errEviction, policy)
	}
	return nil
}

func serverInfo(ctx context.Context, server *redis.Client, section, key string) (string, error) {
	info, err := server.Info(ctx, section).Result()
	if err != nil {
		return "", fmt.Errorf("redis does not answer INFO: %w", err)
	}
	return infoValue(info, key), nil
}

// infoValue returns a value of a reply to INFO, "" if it has none.
func infoValue(info, key string) string {
	for line := range strings.Lines(info) {
		if value, ok := strings.CutPrefix(line, key+":"); ok {
			return strings.TrimSpace(value)
		}
	}
	return ""
}
