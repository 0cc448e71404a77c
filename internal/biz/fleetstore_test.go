package biz

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"maps"
	"slices"
	"strconv"
	"sync"
	"time"
)

// fleetStore is an in-memory store of links with an index, which is changed by flushes only, as in a real one.
type fleetStore struct {
	LinkRepo
	FeedRepo

	mu             sync.Mutex
	epoch          Epoch
	links          map[LinkKey]storedLink
	corrupt        map[LinkKey]bool
	index          map[flushPlace]map[string]IndexEntry // by indexField
	foreign        map[flushPlace]bool                  // indexes that podlink did not write
	services       map[ServiceKey]bool
	gaps, covered  int64
	leases         map[string]storedLease
	moves          int // of slots or servers
	scanned        int // keys
	updates        int
	anyEpoch       bool                       // a known-bad index: it removes whatever the epoch is
	down           error                      // the failure of every call
	afterRead      func()                     // called at the end of each read of links
	afterScan      func()                     // called at the end of each step over all links
	failFlush      func(part FlushPart) error // nil: no part fails
	shorter        func(n int) int            // how many entries a page has instead of n; nil: n
	silent         map[LinkKey]error          // why a link can't be read
	servicesErrors map[ServiceKey]error
}

var errRepo = errors.New("the cause")

type storedLink struct {
	Link
	expires time.Time // zero: never
}

type storedLease struct {
	holder  string
	expires time.Time
}

func newFleetStore() *fleetStore {
	return &fleetStore{
		links: make(map[LinkKey]storedLink), corrupt: make(map[LinkKey]bool), silent: make(map[LinkKey]error),
		index: make(map[flushPlace]map[string]IndexEntry), foreign: make(map[flushPlace]bool), services: make(map[ServiceKey]bool),
		leases: make(map[string]storedLease), gaps: 1, covered: 1,
	}
}

func indexField(e IndexEntry) string {
	if e.Uncertain {
		return "\x1f" + e.UID
	}
	return e.UID
}

// get returns the live link. The caller must hold mu.
func (s *fleetStore) get(key LinkKey) Link {
	stored, exists := s.links[key]
	switch {
	case !exists:
		return NoLink(key)
	case stored.expires.IsZero():
		return stored.Link
	case !time.Now().Before(stored.expires):
		return NoLink(key)
	}
	stored.TTL = TTL((time.Until(stored.expires) + time.Second - 1) / time.Second)
	return stored.Link
}

// bind links the key to the pod, and returns what is to be flushed.
func (s *fleetStore) bind(key LinkKey, pod PodID, ttl TTL) indexUpdates {
	s.mu.Lock()
	defer s.mu.Unlock()
	before := s.get(key)
	if before.Pod != pod {
		s.epoch++
	}
	stored := storedLink{Link: Link{Key: key, Pod: pod, TTL: ttl, Epoch: s.epoch}}
	if before.Pod == pod {
		stored.Epoch = before.Epoch
	}
	if ttl != Forever {
		stored.expires = time.Now().Add(time.Duration(ttl) * time.Second)
	}
	s.links[key] = stored
	updates := indexUpdates{}
	updates.add(key.service(), pod, addOf(stored.Link, time.Now()))
	if before.Exists() && before.Pod != pod {
		updates.add(key.service(), before.Pod, removalOf(IndexEntry{UID: key.UID, Epoch: stored.Epoch - 1}))
	}
	return updates
}

// unbind removes the link of the key, and returns what is to be flushed.
func (s *fleetStore) unbind(key LinkKey) indexUpdates {
	s.mu.Lock()
	defer s.mu.Unlock()
	updates, before := indexUpdates{}, s.get(key)
	delete(s.links, key)
	if before.Exists() {
		updates.add(key.service(), before.Pod, removalOf(IndexEntry{UID: key.UID, Epoch: before.Epoch}))
	}
	return updates
}

// put puts an entry into the index of a pod.
func (s *fleetStore) put(key ServiceKey, pod PodID, entry IndexEntry) {
	op := AddEntry
	if entry.Uncertain {
		op = AddUncertain
	}
	_ = indexUpdates{{key, pod}: {{op, entry}}}.flush(context.Background(), s)
}

// entries returns the entries of a pod, by indexField.
func (s *fleetStore) entries(key ServiceKey, pod PodID) map[string]IndexEntry {
	s.mu.Lock()
	defer s.mu.Unlock()
	return maps.Clone(s.index[flushPlace{key, pod}])
}

// at returns the uids of the links to a pod.
func (s *fleetStore) at(service ServiceKey, pod PodID) map[string]bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	uids := make(map[string]bool)
	for key := range s.links {
		if key.service() == service && s.get(key).Pod == pod {
			uids[key.UID] = true
		}
	}
	return uids
}

// unindexed returns the links that the index of their pod lacks.
func (s *fleetStore) unindexed() (missing []LinkKey) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for key := range s.links {
		if link := s.get(key); link.Exists() {
			if _, exists := s.index[flushPlace{key.service(), link.Pod}][key.UID]; !exists {
				missing = append(missing, key)
			}
		}
	}
	return missing
}

// gap notes that changes may be missing.
func (s *fleetStore) gap() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.gaps++
}

// fail lets every call fail; nil: none.
func (s *fleetStore) fail(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.down = err
}

// BatchGet implements LinkRepo.
func (s *fleetStore) BatchGet(_ context.Context, namespace, service string, uids []string) ([]LinkResult, error) {
	s.mu.Lock()
	if s.afterRead != nil {
		defer s.afterRead()
	}
	defer s.mu.Unlock()
	results := make([]LinkResult, len(uids))
	for i, uid := range uids {
		key := LinkKey{namespace, uid, service}
		results[i].Link = s.get(key)
		if s.corrupt[key] {
			results[i] = LinkResult{NoLink(key), fmt.Errorf("%w: %w", ErrStoreDataCorrupt, errRepo)}
		}
		if err := s.silent[key]; err != nil {
			results[i] = LinkResult{NoLink(key), err}
		}
	}
	return results, s.down
}

// Flush implements FeedRepo.
func (s *fleetStore) Flush(_ context.Context, parts []FlushPart) []error {
	s.mu.Lock()
	defer s.mu.Unlock()
	failures, seen := make([]error, len(parts)), make(map[flushPlace]bool)
	for i, part := range parts {
		at := flushPlace{part.Service, part.Pod}
		switch {
		case seen[at] || len(part.Updates) == 0 || len(part.Updates) > maxPart:
			failures[i] = fmt.Errorf("%w: the parts are not as the contract wants them", errRepo)
			continue
		case s.foreign[at]:
			failures[i] = fmt.Errorf("%w: %w", ErrStoreDataCorrupt, errRepo)
		case s.down != nil:
			failures[i] = s.down
		case s.failFlush != nil:
			failures[i] = s.failFlush(part)
		}
		seen[at], s.services[part.Service] = true, true
		if failures[i] == nil {
			s.apply(at, part.Updates)
		}
	}
	return failures
}

// apply is the rule of the index. The caller must hold mu.
func (s *fleetStore) apply(at flushPlace, updates []IndexUpdate) {
	if s.index[at] == nil {
		s.index[at] = make(map[string]IndexEntry)
	}
	entries := s.index[at]
	for _, update := range updates {
		s.updates++
		field := indexField(update.Entry)
		stored, exists := entries[field]
		switch update.Op {
		case AddEntry:
			if !exists || stored.Epoch <= update.Entry.Epoch {
				entries[field] = update.Entry
			}
		case RemoveEntry:
			if exists && (stored.Epoch <= update.Entry.Epoch || s.anyEpoch) {
				delete(entries, field)
			}
		case AddUncertain:
			entries[field] = update.Entry
		case DropUncertain:
			if !stored.Noted.After(update.Entry.Noted) {
				delete(entries, field)
			}
		}
	}
}

// Services implements IndexRepo.
func (s *fleetStore) Services(_ context.Context, namespace string) ([]ServiceKey, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var keys []ServiceKey
	for key := range s.services {
		if namespace == "" || key.Namespace == namespace {
			keys = append(keys, key)
		}
	}
	return keys, s.down
}

// IndexedPods implements IndexRepo.
func (s *fleetStore) IndexedPods(_ context.Context, key ServiceKey) ([]IndexedPod, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var pods []IndexedPod
	for at, entries := range s.index {
		if at.service == key {
			pods = append(pods, IndexedPod{at.pod, int64(len(entries))})
		}
	}
	slices.SortFunc(pods, func(a, b IndexedPod) int { return cmp.Compare(a.Pod, b.Pod) })
	return pods, cmp.Or(s.servicesErrors[key], s.down)
}

// place orders keys as a table of hashes does.
func place(text string) uint64 {
	sum := fnv.New64a()
	_, _ = sum.Write([]byte(text))
	at := sum.Sum64() // Of similar texts they are close to each other.
	at = (at ^ at>>32) * 0xd6e8feb86659fd93
	return at ^ at>>32
}

// after returns the items whose place is behind the token, in the order of places, at most n, and the token of the rest.
func after[T any](items []T, name func(T) string, token string, n int) (page []T, next string, err error) {
	from, err := strconv.ParseUint(cmp.Or(token, "0"), 36, 64)
	if err != nil {
		return nil, "", &InvalidArgumentError{"page_token", "is not ours"}
	}
	places := make(map[uint64]T, len(items))
	for _, item := range items {
		if at := place(name(item)); at > from {
			places[at] = item
		}
	}
	order := slices.Sorted(maps.Keys(places))
	if len(order) > n {
		order, next = order[:n], strconv.FormatUint(order[n-1], 36)
	}
	for _, at := range order {
		page = append(page, places[at])
	}
	return page, next, nil
}

// Entries implements IndexRepo.
func (s *fleetStore) Entries(_ context.Context, key ServiceKey, pod PodID, token string, n int) ([]IndexEntry, string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	at := flushPlace{key, pod}
	if s.foreign[at] {
		return nil, "", fmt.Errorf("%w: %w", ErrStoreDataCorrupt, errRepo)
	}
	if s.shorter != nil {
		n = s.shorter(n)
	}
	page, next, err := after(slices.Collect(maps.Values(s.index[at])), indexField, token, n)
	return page, next, cmp.Or(s.down, err)
}

// ScanLinks implements IndexRepo.
func (s *fleetStore) ScanLinks(_ context.Context, namespace, token string, n int) ([]Link, string, error) {
	s.mu.Lock()
	if s.afterScan != nil {
		defer s.afterScan()
	}
	defer s.mu.Unlock()
	moves, at := s.moves, ""
	if token != "" {
		if _, err := fmt.Sscanf(token, "%d.%s", &moves, &at); err != nil {
			return nil, "", err
		}
	}
	if moves != s.moves {
		return nil, "", ErrScanMoved
	}
	name := func(key LinkKey) string { return strconv.Itoa(moves) + keyText(key) } // After a move the keys have another order.
	keys, next, err := after(slices.Collect(maps.Keys(s.links)), name, at, n)
	s.scanned += len(keys)
	var links []Link
	for _, key := range keys {
		if link := s.get(key); link.Exists() && (namespace == "" || key.Namespace == namespace) {
			links = append(links, link)
		}
	}
	if next != "" {
		next = fmt.Sprintf("%d.%s", moves, next)
	}
	return links, next, cmp.Or(s.down, err)
}

func keyText(k LinkKey) string { return k.Namespace + ":" + k.Service + ":" + k.UID }

// Completeness implements IndexRepo.
func (s *fleetStore) Completeness(context.Context) (gaps, covered int64, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.gaps, s.covered, s.down
}

// Cover implements IndexRepo.
func (s *fleetStore) Cover(_ context.Context, gaps int64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.down == nil {
		s.covered = min(max(s.covered, gaps), s.gaps)
	}
	return s.down
}

// Lease implements IndexRepo.
func (s *fleetStore) Lease(_ context.Context, name, holder string, ttl time.Duration) (bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	lease := s.leases[name]
	switch {
	case s.down != nil:
		return false, s.down
	case lease.holder != holder && time.Now().Before(lease.expires):
		return false, nil
	}
	s.leases[name] = storedLease{holder, time.Now().Add(ttl)}
	return true, nil
}

// Release implements IndexRepo.
func (s *fleetStore) Release(_ context.Context, name, holder string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.leases[name].holder == holder {
		delete(s.leases, name)
	}
	return s.down
}

// fleetPods is a PodRepo with the pods of services.
type fleetPods struct {
	PodRepo
	pods map[ServiceKey][]Pod
}

// List implements PodRepo.
func (p fleetPods) List(_ context.Context, key ServiceKey) ([]Pod, error) { return p.pods[key], nil }
