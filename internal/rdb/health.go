package rdb

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"

	"podlink/internal/rdb/info"
)

const (
	// probeTimeout is the timeout of a check by Start.
	probeTimeout = time.Second
	// probeInterval is the pause between two checks by Start. It bounds for how long reads alone can come from a server that
	// was demoted to a replica, and for how long a restart of a primary can go unnoticed.
	probeInterval = time.Second
	// probePause is the pause before a check because of a new connection.
	probePause = 200 * time.Millisecond
	// lastCounts is how long the result of a check counts.
	lastCounts = 5 * time.Second
)

// Health checks whether the store is ready, and keeps the last result for the log and the metrics.
type Health struct {
	client    *client
	gate      *gate
	primaries *primaries
	options   Options
	log       Logger
	warnings  *warnings

	once      sync.Once
	stopped   chan struct{} // closed by Stop
	connected chan struct{} // holds a value after a new connection
	first     chan struct{} // closed after the first check

	mu      sync.Mutex
	checked time.Time // of the last check; zero: there was none
	last    error     // its result

	mayEvict atomic.Bool // a server may evict keys, allowed or not
}

func newHealth(o Options, client *client, gate *gate, primaries *primaries, warnings *warnings) *Health {
	h := &Health{
		client: client, gate: gate, primaries: primaries, options: o, log: o.Logger, warnings: warnings,
		stopped: make(chan struct{}), connected: make(chan struct{}, 1), first: make(chan struct{}),
	}
	client.conns.connected = func() {
		select {
		case h.connected <- struct{}{}:
		default:
		}
	}
	return h
}

// Start checks the store every second until Stop, and soon after each new connection. So the scripts are loaded before the
// first request, the log and the metrics show the store's health even if /readyz is never called, and a primary that
// became a replica or lost its data is noticed. Without its store podlink starts and is not ready; Start fails only with
// ErrLayout. Start and Stop make Health a Kratos transport.Server, which starts in parallel with the listeners.
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
		if err := h.probe(ctx); errors.Is(err, ErrLayout) {
			return err
		}
		pause := probeInterval
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(probePause):
			pause -= probePause
		}
		select {
		case <-ctx.Done():
			return nil
		case <-h.connected:
		case <-time.After(pause):
		}
	}
}

// Stop ends Start. The connections are closed later, after the listeners.
func (h *Health) Stop(context.Context) error {
	h.once.Do(func() { close(h.stopped) })
	return nil
}

// probe runs one check; Check records its result.
func (h *Health) probe(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	return h.Check(ctx)
}

// Check returns nil if the store is ready: it answers, passes the self-test, accepts writes, and does not evict keys. The
// error's text is for operators. Check also records the result for the log and the metrics.
func (h *Health) Check(ctx context.Context) error {
	err := h.options.explain(h.check(ctx))
	if !errors.Is(ctx.Err(), context.Canceled) { // A canceled check says nothing about the store.
		h.record(err)
	}
	return err
}

func (h *Health) check(ctx context.Context) error {
	servers := new(serverChecks)
	err := h.client.eachPrimary(ctx, func(ctx context.Context, server *redis.Client) error {
		return h.checkServer(ctx, server, servers)
	})
	if err != nil {
		return err
	}
	h.mayEvict.Store(servers.evicting != "")
	before := h.primaries.String()
	if now := h.primaries.set(servers.ids); before != "" && now != "" && now != before && h.client.cluster == nil {
		h.client.conns.retire(servers.generation) // The old connections may lead to the old primary.
	}
	if err := h.gate.check(ctx); err != nil {
		return err
	}
	if servers.evicting != "" && !h.options.AllowEviction {
		return fmt.Errorf("%w; it is %q", errEviction, servers.evicting)
	}
	return nil
}

// record logs a line when the store has become ready, or not ready.
func (h *Health) record(err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	first, before := h.checked.IsZero(), h.last
	h.checked, h.last = time.Now(), err
	if first {
		close(h.first)
	}
	if !first && (before == nil) == (err == nil) {
		return
	}
	switch {
	case first && err == nil:
		h.log.Infof("the store is ready: every script passed its self-test")
	case errors.Is(err, ErrLayout):
		h.log.Errorf("podlink can't use the store: %v", err)
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
	return !h.checked.IsZero() && h.last == nil
}

// Last returns the result of the last check, without asking the store. Start checks it every second; before the first result Last
// waits for it, until ctx ends.
func (h *Health) Last(ctx context.Context) error {
	select {
	case <-h.first:
	case <-ctx.Done():
		return errors.New("the store has not been checked yet")
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if age := time.Since(h.checked); h.last == nil && age > lastCounts {
		return fmt.Errorf("the last check of the store was %s ago", age.Round(time.Second))
	}
	return h.last
}

// errEviction is returned because Redis would silently evict links to free memory.
var errEviction = errors.New("the maxmemory-policy of redis must be noeviction, or data.redis.allow_eviction true: " +
	"an evicted link is a lost session")

var errReplica = errors.New("redis is a replica and accepts no writes")

// serverChecks collects what a check learns from all servers.
type serverChecks struct {
	mu         sync.Mutex
	ids        []string // of the primaries; "" for one that denies INFO
	evicting   string   // the maxmemory-policy of a server that may evict keys
	generation int64    // of the connections before the check; not for a cluster
}

func (s *serverChecks) add(id, evicting string, generation int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ids = append(s.ids, id)
	s.generation = generation
	if evicting != "" {
		s.evicting = evicting
	}
}

// checkServer checks one server. It uses INFO, because managed Redis services deny CONFIG.
func (h *Health) checkServer(ctx context.Context, server *redis.Client, checks *serverChecks) error {
	generation := h.client.conns.generation.Load()
	if h.options.Embedded {
		if err := server.Ping(ctx).Err(); err != nil {
			return fmt.Errorf("the embedded store does not answer: %w", err)
		}
		return nil
	}
	var ping *redis.StatusCmd
	var section [3]*redis.StringCmd
	_, failure := server.Pipelined(ctx, func(pipe redis.Pipeliner) error {
		ping = pipe.Ping(ctx)
		for i, name := range []string{"replication", "server", "memory"} { // Redis before 7.0 takes one section at a time.
			section[i] = pipe.Info(ctx, name)
		}
		return nil
	})
	err := ping.Err()
	if ping.Val() == "" && err == nil { // The handshake was refused; the driver sets no error on the commands then.
		err = failure
	}
	if err != nil {
		h.gate.reset() // Another server may answer next.
		if errors.Is(err, errReplica) {
			return err
		}
		return fmt.Errorf("redis does not answer: %w", err)
	}
	text := ""
	for _, reply := range section {
		switch err := reply.Err(); {
		case err == nil:
			text += reply.Val() + "\r\n"
		case denied(err):
			h.warnings.warn("redis does not let podlink use INFO, so podlink can't check that it is a primary, that it does not " +
				"evict links, and whether it has lost data")
			checks.add("", "", generation)
			return nil
		default:
			return fmt.Errorf("redis does not answer INFO: %w", err)
		}
	}
	if info.Field(text, "role") != "master" {
		h.gate.reset() // The new primary is another server.
		if h.client.cluster == nil {
			h.client.conns.retire(generation)
		}
		return errReplica
	}
	policy := info.Field(text, "maxmemory_policy")
	if policy == "noeviction" {
		policy = ""
	}
	checks.add(primaryID(text), policy, generation)
	return nil
}

// denied reports whether Redis refused a command because of the user's rights, or because it was renamed.
func denied(err error) bool {
	return redis.HasErrorPrefix(err, "NOPERM") || redis.HasErrorPrefix(err, "unknown command") // After "ERR ".
}
