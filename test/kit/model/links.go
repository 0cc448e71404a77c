package model

import (
	"context"
	"maps"
	"slices"

	"podlink/internal/biz"
)

// linkRepo implements biz.LinkRepo.
type linkRepo struct{ *Podlink }

// storedLink is a link in the store. One that has expired still has an epoch that the next one must exceed.
type storedLink struct {
	pod    biz.PodID
	epoch  biz.Epoch
	expiry int64 // in ms; 0: never
	claim  biz.Generation
}

func (l storedLink) live(nowUs int64) bool { return l.expiry == 0 || l.expiry*1000 > nowUs }

// found is what a request finds for a key.
type found struct {
	link   biz.Link  // the live one, NoLink if there is none
	stored bool      // there is a link, live or expired
	last   biz.Epoch // its epoch; 0 if there is none
}

// find returns the link at the time. The caller must hold mu.
func (s *Store) find(key biz.LinkKey, nowUs int64) found {
	l, ok := s.links[user{key.Namespace, key.UID}][key.Service]
	f := found{link: biz.NoLink(key), stored: ok, last: l.epoch}
	if ok && l.live(nowUs) {
		f.link = biz.Link{Key: key, Pod: l.pod, TTL: biz.Forever, Epoch: l.epoch, Claim: l.claim}
		if l.expiry != 0 {
			f.link.TTL = biz.TTL((l.expiry*1000 - nowUs + 999_999) / 1_000_000)
		}
	}
	return f
}

// read carries out a read of one link.
func (r linkRepo) read(ctx context.Context, key biz.LinkKey) (biz.Link, error) {
	link, failure := biz.NoLink(key), error(nil)
	err := r.call(ctx, false, func() {
		if r.store.corrupt[user{key.Namespace, key.UID}] {
			failure = biz.ErrStoreDataCorrupt
			return
		}
		link = r.store.find(key, r.store.micros()).link
	})
	switch {
	case err != nil:
		return biz.Link{}, err
	case failure != nil:
		return biz.Link{}, failure
	}
	return link, nil
}

// mutation decides what a request does to the link that it finds.
type mutation func(f found, nowUs int64) (biz.LinkChange, error)

// mutate carries out one mutation. decide runs at the moment of the request.
func (r linkRepo) mutate(ctx context.Context, key biz.LinkKey, decide mutation) (biz.LinkChange, error) {
	var change biz.LinkChange
	var failure error
	if err := r.call(ctx, true, func() { change, failure = r.apply(key, decide) }); err != nil {
		return biz.LinkChange{}, err
	}
	if failure != nil {
		return biz.LinkChange{}, failure
	}
	return change, nil
}

// apply carries out a mutation. The caller must hold mu.
func (r linkRepo) apply(key biz.LinkKey, decide mutation) (biz.LinkChange, error) {
	if r.store.corrupt[user{key.Namespace, key.UID}] {
		return biz.LinkChange{}, biz.ErrStoreDataCorrupt
	}
	now := r.store.micros()
	return decide(r.store.find(key, now), now)
}

// write stores a link for a ttl. The caller must hold mu.
func (s *Store) write(f found, link biz.Link, nowUs int64) {
	owner := user{link.Key.Namespace, link.Key.UID}
	s.prepare(owner, link.Key.Service)
	for service, l := range s.links[owner] {
		if !l.live(nowUs) {
			delete(s.links[owner], service)
		}
	}
	stored := storedLink{pod: link.Pod, epoch: link.Epoch, claim: link.Claim}
	if link.TTL != biz.Forever {
		stored.expiry = nowUs/1000 + int64(link.TTL)*1000
	}
	s.links[owner][link.Key.Service] = stored
	s.changed(f.link, link)
}

// remove deletes a link. The caller must hold mu.
func (s *Store) remove(link biz.Link) {
	owner := user{link.Key.Namespace, link.Key.UID}
	s.prepare(owner, link.Key.Service)
	delete(s.links[owner], link.Key.Service)
	s.changed(link, biz.NoLink(link.Key))
}

func (s *Store) prepare(owner user, service string) {
	if s.links[owner] == nil {
		s.links[owner] = make(map[string]storedLink)
	}
	before, ok := s.links[owner][service]
	s.remember(func() {
		if ok {
			s.links[owner][service] = before
		} else {
			delete(s.links[owner], service)
		}
	})
}

func (s *Store) changed(before, after biz.Link) {
	if s.watch != nil {
		s.watch(Change{At: timeOf(s.last), Key: before.Key, Before: before, After: after})
	}
}

// day is how far ahead of the clock an epoch may be, in µs.
const day = 24 * 60 * 60 * 1_000_000

// bind links the key to the pod. renewed: even the same pod is a new owner. The caller must hold mu.
func (r linkRepo) bind(
	f found, nowUs int64, pod biz.PodID, ttl biz.TTL, terms biz.SetTerms, renewed bool,
) (biz.LinkChange, error) {
	link := f.link
	if link.Pod != pod || renewed {
		if !f.stored && r.full(link.Key, nowUs) {
			return biz.LinkChange{}, &biz.LimitError{Limit: "limits.max_services"}
		}
		least := f.last
		if terms.Above != nil {
			least = max(least, *terms.Above)
		}
		link.Pod, link.Claim, link.Epoch = pod, terms.Claim, max(biz.Epoch(nowUs), least+1)
	}
	link.TTL = ttl
	change := biz.LinkChange{Applied: true, Previous: f.link.Pod, Link: link, Kept: link == f.link && link.Persistent()}
	if !change.Kept {
		r.store.write(f, link, nowUs)
	}
	return change, nil
}

// full reports whether the user has as many live links as allowed.
func (r linkRepo) full(key biz.LinkKey, nowUs int64) bool {
	live := 0
	for _, l := range r.store.links[user{key.Namespace, key.UID}] {
		if l.live(nowUs) {
			live++
		}
	}
	return live >= r.MaxServices
}

func tooFarAhead(above *biz.Epoch, nowUs int64) error {
	if above == nil || int64(*above)-nowUs <= day {
		return nil
	}
	return &biz.InvalidArgumentError{
		Field: "above_epoch", Detail: "must be at most a day ahead of the store's clock, in µs since 1970",
	}
}

func mismatch(f found, expected *biz.Epoch) error {
	if expected == nil || *expected == f.link.Epoch {
		return nil
	}
	return &biz.EpochMismatchError{Current: f.link}
}

func refused(f found) biz.LinkChange { return biz.LinkChange{Previous: f.link.Pod, Link: f.link} }

// Set implements biz.LinkRepo.
func (r linkRepo) Set(
	ctx context.Context, key biz.LinkKey, pod biz.PodID, ttl biz.TTL, terms biz.SetTerms,
) (biz.LinkChange, error) {
	return r.mutate(ctx, key, r.setting(pod, ttl, terms))
}

func (r linkRepo) setting(pod biz.PodID, ttl biz.TTL, terms biz.SetTerms) mutation {
	return func(f found, now int64) (biz.LinkChange, error) {
		if err := tooFarAhead(terms.Above, now); err != nil {
			return biz.LinkChange{}, err
		}
		claims := terms.Claim != 0 && f.link.Pod == pod
		switch {
		case terms.Own != nil && (*terms.Own != f.link.Pod || terms.Persistent != nil && *terms.Persistent != f.link.Persistent()):
			return biz.LinkChange{}, &biz.EpochMismatchError{Current: f.link}
		case claims && f.link.Claim == terms.Claim && (terms.Above == nil || *terms.Above < f.link.Epoch):
			return r.bind(f, now, pod, ttl, terms, false) // A repeated claim.
		case claims && f.link.Claim > terms.Claim:
			return biz.LinkChange{}, &biz.SupersededError{Generation: f.link.Claim}
		}
		if err := mismatch(f, terms.Expected); err != nil {
			return biz.LinkChange{}, err
		}
		return r.bind(f, now, pod, ttl, terms, claims)
	}
}

// TrySet implements biz.LinkRepo.
func (r linkRepo) TrySet(
	ctx context.Context, key biz.LinkKey, pod biz.PodID, ttl biz.TTL, own *biz.PodID,
) (biz.LinkChange, error) {
	return r.mutate(ctx, key, func(f found, now int64) (biz.LinkChange, error) {
		if f.link.Persistent() && f.link.Pod != pod || own != nil && f.link.Pod != *own {
			return refused(f), nil
		}
		return r.bind(f, now, pod, ttl, biz.SetTerms{}, false)
	})
}

// SetIfAbsent implements biz.LinkRepo.
func (r linkRepo) SetIfAbsent(
	ctx context.Context, key biz.LinkKey, pod biz.PodID, ttl biz.TTL, terms biz.SetTerms,
) (biz.LinkChange, error) {
	return r.mutate(ctx, key, r.settingIfAbsent(pod, ttl, terms))
}

func (r linkRepo) settingIfAbsent(pod biz.PodID, ttl biz.TTL, terms biz.SetTerms) mutation {
	return func(f found, now int64) (biz.LinkChange, error) {
		if err := tooFarAhead(terms.Above, now); err != nil {
			return biz.LinkChange{}, err
		}
		if f.link.Exists() {
			return refused(f), nil
		}
		return r.bind(f, now, pod, ttl, terms, false)
	}
}

// SetIfEpoch implements biz.LinkRepo.
func (r linkRepo) SetIfEpoch(
	ctx context.Context, key biz.LinkKey, pod biz.PodID, ttl biz.TTL, move biz.MoveTerms,
) (biz.LinkChange, error) {
	return r.mutate(ctx, key, r.moving(pod, ttl, move))
}

func (r linkRepo) moving(pod biz.PodID, ttl biz.TTL, move biz.MoveTerms) mutation {
	return func(f found, now int64) (biz.LinkChange, error) {
		terms := biz.SetTerms{}
		if move.Above != 0 {
			terms.Above = &move.Above
		}
		if err := tooFarAhead(terms.Above, now); err != nil {
			return biz.LinkChange{}, err
		}
		if f.link.Exists() && (f.link.Epoch != move.Epoch || move.TemporaryOnly && f.link.Persistent()) {
			return refused(f), nil
		}
		return r.bind(f, now, pod, ttl, terms, false)
	}
}

// Get implements biz.LinkRepo.
func (r linkRepo) Get(ctx context.Context, key biz.LinkKey) (biz.Link, error) {
	return r.read(ctx, key)
}

// GetIfPersist implements biz.LinkRepo.
func (r linkRepo) GetIfPersist(ctx context.Context, key biz.LinkKey) (biz.Link, error) {
	link, err := r.read(ctx, key)
	if err == nil && !link.Persistent() {
		return biz.NoLink(key), nil
	}
	return link, err
}

// BatchGet implements biz.LinkRepo.
func (r linkRepo) BatchGet(ctx context.Context, namespace, service string, uids []string) ([]biz.LinkResult, error) {
	results := make([]biz.LinkResult, len(uids))
	err := r.call(ctx, false, func() {
		now := r.store.micros()
		for i, uid := range uids {
			key := biz.LinkKey{Namespace: namespace, UID: uid, Service: service}
			results[i].Link = biz.NoLink(key)
			if r.store.corrupt[user{namespace, uid}] {
				results[i].Err = biz.ErrStoreDataCorrupt
			} else {
				results[i].Link = r.store.find(key, now).link
			}
		}
	})
	if err != nil {
		return nil, err
	}
	return results, nil
}

// Remove implements biz.LinkRepo.
func (r linkRepo) Remove(
	ctx context.Context, key biz.LinkKey, keep int32, terms biz.RemoveTerms,
) (biz.LinkChange, error) {
	return r.mutate(ctx, key, r.removing(keep, terms))
}

func (r linkRepo) removing(keep int32, terms biz.RemoveTerms) mutation {
	return func(f found, now int64) (biz.LinkChange, error) {
		if err := mismatch(f, terms.Expected); err != nil {
			return biz.LinkChange{}, err
		}
		if !f.link.Exists() {
			return refused(f), nil
		}
		if terms.Own != nil && *terms.Own != f.link.Pod {
			return biz.LinkChange{}, &biz.EpochMismatchError{Current: f.link}
		}
		return r.unbind(f, now, keep), nil
	}
}

// RemoveWithID implements biz.LinkRepo.
func (r linkRepo) RemoveWithID(ctx context.Context, key biz.LinkKey, pod biz.PodID, keep int32) (biz.LinkChange, error) {
	return r.mutate(ctx, key, r.removingWithID(pod, keep))
}

func (r linkRepo) removingWithID(pod biz.PodID, keep int32) mutation {
	return func(f found, now int64) (biz.LinkChange, error) {
		if !f.link.Exists() || f.link.Pod != pod {
			return refused(f), nil
		}
		return r.unbind(f, now, keep), nil
	}
}

// unbind removes the live link, or keeps it for a while without its claim. The caller must hold mu.
func (r linkRepo) unbind(f found, nowUs int64, keep int32) biz.LinkChange {
	change := biz.LinkChange{Applied: true, Previous: f.link.Pod, Link: biz.NoLink(f.link.Key)}
	if keep > 0 {
		change.Link = f.link
		change.Link.TTL, change.Link.Claim = biz.TTL(keep), 0
		r.store.write(f, change.Link, nowUs)
	} else {
		change.Removed = f.link.Epoch
		r.store.remove(f.link)
	}
	return change
}

// List implements biz.LinkRepo.
func (r linkRepo) List(ctx context.Context, namespace, uid string) ([]biz.Link, error) {
	links := []biz.Link{}
	failure := error(nil)
	err := r.call(ctx, false, func() {
		owner := user{namespace, uid}
		if r.store.corrupt[owner] {
			failure = biz.ErrStoreDataCorrupt
			return
		}
		now := r.store.micros()
		for _, service := range slices.Sorted(maps.Keys(r.store.links[owner])) {
			if f := r.store.find(biz.LinkKey{Namespace: namespace, UID: uid, Service: service}, now); f.link.Exists() {
				links = append(links, f.link)
			}
		}
	})
	switch {
	case err != nil:
		return nil, err
	case failure != nil:
		return nil, failure
	}
	return links, nil
}
