package biz

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

var errUnconfirmed = &UnconfirmedError{Cause: errors.New("no replica")}

// TestChangesAreNoted: of each mutation that has changed a link, or may have.
func TestChangesAreNoted(t *testing.T) {
	lost, refused := linkFate{err: ErrOutcomeUnknown}, linkFate{err: ErrStoreUnavailable}
	unconfirmed := linkFate{err: errUnconfirmed, executed: true}
	own := PodID(1)
	change := func(kind ChangeKind, pod PodID, ttl TTL, epoch Epoch, previous PodID) Change {
		return Change{Kind: kind, Link: Link{Key: room.link("ann"), Pod: pod, TTL: ttl, Epoch: epoch}, Previous: previous}
	}
	type mutation func(ctx context.Context, links LinkRepo, key LinkKey) error
	set := func(pod PodID, ttl TTL, terms SetTerms) mutation {
		return func(ctx context.Context, links LinkRepo, key LinkKey) error {
			_, err := links.Set(ctx, key, pod, ttl, terms)
			return err
		}
	}
	trySet := func(ctx context.Context, links LinkRepo, key LinkKey) error {
		_, err := links.TrySet(ctx, key, 2, Forever, &own)
		return err
	}
	setIfAbsent := func(ctx context.Context, links LinkRepo, key LinkKey) error {
		_, err := links.SetIfAbsent(ctx, key, 2, Forever, SetTerms{})
		return err
	}
	setIfEpoch := func(ctx context.Context, links LinkRepo, key LinkKey) error {
		_, err := links.SetIfEpoch(ctx, key, 2, Forever, MoveTerms{Epoch: 1})
		return err
	}
	remove := func(keep int32, terms RemoveTerms) mutation {
		return func(ctx context.Context, links LinkRepo, key LinkKey) error {
			_, err := links.Remove(ctx, key, keep, terms)
			return err
		}
	}
	removeWithID := func(ctx context.Context, links LinkRepo, key LinkKey) error {
		_, err := links.RemoveWithID(ctx, key, 1, 0)
		return err
	}
	batchSet := func(ctx context.Context, links LinkRepo, key LinkKey) error {
		return links.BatchSet(ctx, key.service(), []SetItem{{UID: key.UID, Pod: 2, TTL: Forever, Terms: SetTerms{Own: &own}}})[0].Err
	}
	batchMove := func(ctx context.Context, links LinkRepo, key LinkKey) error {
		return links.BatchSetIfEpoch(ctx, key.service(), []MoveItem{{UID: key.UID, Pod: 2, TTL: 60, Terms: MoveTerms{Epoch: 1}}})[0].Err
	}
	batchRemove := func(pod *PodID) mutation {
		return func(ctx context.Context, links LinkRepo, key LinkKey) error {
			return links.BatchRemove(ctx, key.service(), []RemoveItem{{UID: key.UID, Pod: pod}})[0].Err
		}
	}
	linked, moved := change(Linked, 2, Forever, 1, NoPod), change(Moved, 2, Forever, 2, 1)
	removed := change(Removed, NoPod, Gone, 1, 1)
	perhaps, perhapsMoved := change(Uncertain, 2, Forever, 0, NoPod), change(Uncertain, 2, Forever, 0, 1)
	perhapsGone, perhapsFreed := change(Uncertain, NoPod, Gone, 0, NoPod), change(Uncertain, NoPod, Gone, 0, 1)
	for name, row := range map[string]struct {
		before bool // there is a persistent link to pod 1 with epoch 1
		run    mutation
		fate   *linkFate
		want   []Change
	}{
		"set":                              {false, set(2, Forever, SetTerms{}), nil, []Change{linked}},
		"set, to another pod":              {true, set(2, Forever, SetTerms{}), nil, []Change{moved}},
		"set, to another ttl":              {true, set(1, 60, SetTerms{}), nil, []Change{change(Expiring, 1, 60, 1, 1)}},
		"set, as it is":                    {true, set(1, Forever, SetTerms{}), nil, nil},
		"set, refused":                     {true, set(2, Forever, SetTerms{}), &refused, nil},
		"set, unconfirmed":                 {true, set(2, Forever, SetTerms{}), &unconfirmed, []Change{moved}},
		"set, as it is, unconfirmed":       {true, set(1, Forever, SetTerms{}), &unconfirmed, nil},
		"set, the reply is lost":           {true, set(2, Forever, SetTerms{}), &lost, []Change{perhaps}},
		"set of an own link, lost":         {true, set(2, Forever, SetTerms{Own: &own}), &lost, []Change{perhapsMoved}},
		"try":                              {false, trySet, nil, []Change{linked}},
		"try, not applied":                 {true, trySet, nil, nil},
		"try, lost":                        {true, trySet, &lost, []Change{perhapsMoved}},
		"if absent":                        {false, setIfAbsent, nil, []Change{linked}},
		"if absent, and it is not":         {true, setIfAbsent, nil, nil},
		"if absent, lost":                  {false, setIfAbsent, &lost, []Change{perhaps}},
		"if it has the epoch":              {true, setIfEpoch, nil, []Change{moved}},
		"if it has the epoch, lost":        {true, setIfEpoch, &lost, []Change{perhaps}},
		"remove":                           {true, remove(0, RemoveTerms{}), nil, []Change{removed}},
		"remove, and keep for a while":     {true, remove(60, RemoveTerms{}), nil, []Change{change(Expiring, 1, 60, 1, 1)}},
		"remove, nothing":                  {false, remove(0, RemoveTerms{}), nil, nil},
		"remove, unconfirmed":              {true, remove(0, RemoveTerms{}), &unconfirmed, []Change{removed}},
		"remove, lost":                     {true, remove(0, RemoveTerms{}), &lost, []Change{perhapsGone}},
		"remove an own link, lost":         {true, remove(0, RemoveTerms{Own: &own}), &lost, []Change{perhapsFreed}},
		"remove from the pod":              {true, removeWithID, nil, []Change{removed}},
		"remove from the pod, lost":        {true, removeWithID, &lost, []Change{perhapsFreed}},
		"batch set":                        {true, batchSet, nil, []Change{moved}},
		"batch set, lost":                  {true, batchSet, &lost, []Change{perhapsMoved}},
		"batch set, refused":               {true, batchSet, &refused, nil},
		"batch set, unconfirmed":           {true, batchSet, &unconfirmed, []Change{perhapsMoved}},
		"batch move":                       {true, batchMove, nil, []Change{change(Moved, 2, 60, 2, 1)}},
		"batch move, lost":                 {true, batchMove, &lost, []Change{change(Uncertain, 2, 60, 0, NoPod)}},
		"batch remove":                     {true, batchRemove(nil), nil, []Change{removed}},
		"batch remove, lost":               {true, batchRemove(nil), &lost, []Change{perhapsGone}},
		"batch remove from the pod, lost":  {true, batchRemove(&own), &lost, []Change{perhapsFreed}},
		"batch remove, a part unconfirmed": {true, batchRemove(&own), &unconfirmed, []Change{perhapsFreed}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				store, links := newFeedStore(), newFeedLinks()
				if row.before {
					_, err := links.bind(room.link("ann"), 1, Forever, func(Link) bool { return false })
					require.NoError(t, err)
				}
				if row.fate != nil {
					links.fate = func() linkFate { return *row.fate }
				}
				by := func(ctx context.Context) string { return ctx.Value(byKey{}).(string) }
				feed := NewFeed(store, links, FeedOptions{Index: true, By: by})
				err := row.run(context.WithValue(t.Context(), byKey{}, "gateway"), NoteChanges(links, feed), room.link("ann"))
				if row.fate != nil {
					require.ErrorIs(t, err, row.fate.err)
				} else {
					require.NoError(t, err)
				}
				want := row.want
				for i := range want {
					want[i].By, want[i].Time = "gateway", time.Now()
				}
				require.Equal(t, want, feed.queue.waiting)
			})
		})
	}
}

// byKey is the key of a context's caller.
type byKey struct{}

// TestReadsAreNotNoted: they pass, and say nothing about the process.
func TestReadsAreNotNoted(t *testing.T) {
	store, links := newFeedStore(), newFeedLinks()
	noted := NoteChanges(links, NewFeed(store, links, FeedOptions{}))
	_, err := noted.BatchGet(t.Context(), "game", "room", []string{"ann"})
	require.NoError(t, err)
	require.Equal(t, 1, links.reads)
	require.Zero(t, store.beats)
}
