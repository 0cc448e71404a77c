package data

import (
	"context"
	"errors"
	"sync"
	"time"

	"podlink/internal/biz"
	"podlink/internal/rdb"
)

// registered is for how long a process relies on what it has registered: a store may lose it.
const registered = time.Minute

// registry remembers which services and pods this process has registered lately, in the store that there is now.
type registry struct {
	store func() string

	mu    sync.Mutex
	of    string    // the store that known belongs to
	begun time.Time // the age of known
	known *sync.Map // keys of registrations

	former *sync.Map // what was known in the minute before
}

// current returns what is registered.
func (r *registry) current() *sync.Map {
	store, now := r.store(), time.Now()
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case r.known == nil || r.of != store:
		r.of, r.begun, r.known, r.former = store, now, new(sync.Map), new(sync.Map)
	case now.Sub(r.begun) >= registered:
		r.begun, r.known, r.former = now, new(sync.Map), r.known
	}
	return r.known
}

// lately returns what was registered in this minute and the one before, each once.
func (r *registry) lately() (all []registration) {
	known := r.current()
	r.mu.Lock()
	former := r.former
	r.mu.Unlock()
	known.Range(func(one, _ any) bool {
		all = append(all, one.(registration)) //nolint:forcetypeassert // It has no others.
		return true
	})
	former.Range(func(one, _ any) bool {
		if _, again := known.Load(one); !again {
			all = append(all, one.(registration)) //nolint:forcetypeassert // It has no others.
		}
		return true
	})
	return all
}

// registration is a member of a set in the store.
type registration struct {
	script *rdb.Script
	key    string
	member any // a string or an int32
}

// register registers the services of the parts, and the pods whose index they update. It returns an error for each part.
func (f *Fleet) register(ctx context.Context, parts []biz.FlushPart) []error {
	known, failures := f.registry.current(), make([]error, len(parts))
	var missing []registration
	users := make(map[registration][]int) // the parts that need it
	need := func(part int, r registration) {
		if _, ok := known.Load(r); ok {
			return
		}
		if users[r] == nil {
			missing = append(missing, r)
		}
		users[r] = append(users[r], part)
	}
	for i, part := range parts {
		need(i, registration{scriptAddService, f.keys.services(), part.Service.Namespace + ":" + part.Service.Service})
		if len(part.Updates) > 0 {
			need(i, registration{scriptAddIndexed, f.keys.indexed(part.Service), int32(part.Pod)})
		}
	}
	for i, reply := range f.runner.RunEach(ctx, stepsOf(missing)) {
		if reply.Err == nil {
			known.Store(missing[i], true)
			continue
		}
		for _, part := range users[missing[i]] {
			failures[part] = domainError(reply.Err)
		}
	}
	return failures
}

func stepsOf(registrations []registration) []rdb.Step {
	steps := make([]rdb.Step, len(registrations))
	for i, r := range registrations {
		steps[i] = rdb.Step{Script: r.script, Key: r.key, Args: []any{r.member}}
	}
	return steps
}

// registerAgain registers what this process has registered lately: a store that has lost its data lacks it.
func (f *Fleet) registerAgain(ctx context.Context) error {
	for _, reply := range f.runner.RunEach(ctx, stepsOf(f.registry.lately())) {
		if err := domainError(reply.Err); err != nil && !errors.Is(err, biz.ErrStoreDataCorrupt) {
			return err
		}
	}
	return nil
}
