package data

import (
	"context"
	"errors"
	"fmt"
	"time"

	"podlink/internal/biz"
	"podlink/internal/rdb"
)

// Fleet is the repo of the change feeds, of the index of links by pod and of the podlink processes that write them. It implements
// biz.FeedRepo and biz.IndexRepo.
type Fleet struct {
	store
	links      linkRepo
	feedMaxAge int64 // in ms
	registry   registry
}

// FleetOptions are the settings of a Fleet.
type FleetOptions struct {
	FeedMaxAge time.Duration // age at which an entry of a feed is trimmed
}

// NewFleet returns the repo in the store.
func NewFleet(runner *rdb.Runner, keys Keyspace, o FleetOptions) *Fleet {
	s := store{runner, keys}
	return &Fleet{
		store: s, links: linkRepo{store: s, metrics: NewLinkMetrics()}, feedMaxAge: o.FeedMaxAge.Milliseconds(),
		registry: registry{store: runner.Primaries},
	}
}

// Store implements biz.FeedRepo.
func (f *Fleet) Store() string { return f.runner.Primaries() }

// Flush implements biz.FeedRepo. It takes two round trips per server if a service or a pod is to be registered, otherwise one.
func (f *Fleet) Flush(ctx context.Context, parts []biz.FlushPart) []error {
	failures := f.register(ctx, parts)
	var steps []rdb.Step
	var of []int // the part of each step
	for i, part := range parts {
		if failures[i] != nil {
			continue // What is not registered must not be written: nobody would find it.
		}
		switch {
		case len(part.Changes) > 0:
			steps = append(steps, f.appendStep(part.Service, fieldChanges, encodeChanges(part.Changes)))
		case len(part.Updates) > 0:
			steps = append(steps, f.updateStep(part.Service, part.Pod, part.Updates))
		default:
			continue
		}
		of = append(of, i)
	}
	for n, reply := range f.runner.RunEach(ctx, steps) {
		failures[of[n]] = domainError(reply.Err)
	}
	return failures
}

// Beat implements biz.FeedRepo.
func (f *Fleet) Beat(ctx context.Context, writer string) (map[string]int64, error) {
	reply, err := f.run(ctx, scriptBeat, f.keys.writers(), writer)
	if err != nil {
		return nil, err
	}
	fields, err := reply.Fields(1, len(reply.Values)-1)
	if err != nil {
		return nil, err
	}
	if len(fields)%2 != 0 {
		return nil, reply.Malformed()
	}
	var p parser
	counters := make(map[string]int64, len(fields)/2)
	for i := 0; i < len(fields); i += 2 {
		counters[fields[i]] = p.number(fields[i+1], 1, maxCount)
	}
	return counters, p.err
}

// maxCount is the greatest counter that scripts accept, and one more.
const maxCount = 1e15

// Leave implements biz.FeedRepo.
func (f *Fleet) Leave(ctx context.Context, writer string, counter int64) error {
	_, err := f.run(ctx, scriptLeave, f.keys.writers(), writer, counter)
	return err
}

// Gap implements biz.FeedRepo. Every feed gets its gap, or the call fails; one that podlink did not write is left: nobody can read it, and
// it must not keep the others from being complete.
func (f *Fleet) Gap(ctx context.Context, reason biz.GapReason) error {
	if _, err := f.run(ctx, scriptAddGap, f.keys.fleet()); err != nil {
		return err
	}
	if err := f.registerAgain(ctx); err != nil {
		return err
	}
	services, err := f.Services(ctx, "")
	if err != nil {
		return err
	}
	steps := make([]rdb.Step, len(services))
	for i, key := range services {
		steps[i] = f.appendStep(key, fieldGap, string(reason))
	}
	for _, reply := range f.runner.RunEach(ctx, steps) {
		if err := domainError(reply.Err); err != nil && !errors.Is(err, biz.ErrStoreDataCorrupt) {
			return err
		}
	}
	return nil
}

// Completeness implements biz.IndexRepo. The time before the first census counts as a gap, which is not stored: an index that was
// never complete needs a census.
func (f *Fleet) Completeness(ctx context.Context) (gaps, covered int64, err error) {
	value, call, err := f.runner.Read(ctx, keyFleet, "hmget", f.keys.fleet(), "gaps", "covered")
	if err != nil {
		return 0, 0, domainError(err)
	}
	fields, ok := value.([]any)
	if !ok || len(fields) != 2 {
		err = fmt.Errorf("HMGET answered %T", value)
		call.Decoded(err)
		return 0, 0, err
	}
	var p parser
	count := func(field any) int64 {
		if text, ok := field.(string); ok {
			return p.number(text, 0, maxCount)
		}
		return 0
	}
	gaps, covered = count(fields[0])+1, count(fields[1])
	call.Decoded(p.err)
	return gaps, covered, p.err
}

// Cover implements biz.IndexRepo.
func (f *Fleet) Cover(ctx context.Context, gaps int64) error {
	_, err := f.run(ctx, scriptCoverGaps, f.keys.fleet(), gaps)
	return err
}

// Lease implements biz.IndexRepo.
func (f *Fleet) Lease(ctx context.Context, name, holder string, ttl time.Duration) (bool, error) {
	reply, err := f.run(ctx, scriptTakeLease, f.keys.lease(name), holder, ttl.Milliseconds())
	return err == nil && reply.Status() == "HELD", err
}

// Release implements biz.IndexRepo.
func (f *Fleet) Release(ctx context.Context, name, holder string) error {
	_, err := f.run(ctx, scriptReleaseLease, f.keys.lease(name), holder)
	return err
}
