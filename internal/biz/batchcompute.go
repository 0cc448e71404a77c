package biz

import "context"

// BatchComputeRequest is how to compute many links of a service. It is unvalidated.
type BatchComputeRequest struct {
	TTL      TTL               // as in ComputeRequest, for all items
	Selector map[string]string // as in ComputeRequest, for all items
	Items    []ComputeItem
}

// ComputeItem is one uid of a BatchComputeRequest, with the fields of ComputeRequest that differ from uid to uid.
type ComputeItem struct {
	UID        string
	Avoid      []PodID
	AvoidEpoch Epoch
	Known      *NewKnown
}

// request returns the request for the item alone.
func (r *BatchComputeRequest) request(item ComputeItem) ComputeRequest {
	return ComputeRequest{
		TTL: r.TTL, Avoid: item.Avoid, AvoidEpoch: item.AvoidEpoch, Selector: r.Selector, Known: item.Known,
	}
}

// ComputedResult is the result of one compute of a batch, or why it failed.
type ComputedResult struct {
	Computed // with an error only Link.Key, of NoLink
	Err      error
}

// BatchCompute is Compute for each of the uids, with the same steps, each for all items at once: the links are read, then the pods
// of all new links are reserved, then these links are made. Items whose link was changed meanwhile are repeated. Each item fails
// by itself. The call fails only if the store has answered for no item.
func (u *LinkUsecase) BatchCompute(
	ctx context.Context, key ServiceKey, request BatchComputeRequest,
) (results []ComputedResult, err error) {
	uid := func(item ComputeItem) string { return item.UID }
	own := func(item ComputeItem) error {
		alone := request.request(item)
		return alone.validateOwn()
	}
	shared := ComputeRequest{TTL: request.TTL, Selector: request.Selector}
	if err := firstError(validateItems(key, request.Items, u.maxBatch, uid, own), shared.validateShared()); err != nil {
		return nil, err
	}
	u.observer.BatchStarted(ComputeBatch, len(request.Items))
	batch := newComputeBatch(u, key, &request)
	ctx = u.observer.ComputesStarted(ctx, key)
	defer func() { u.observer.ComputesEnded(ctx, batch.results(err)) }()
	if err := batch.run(ctx); err != nil {
		return nil, err
	}
	return batch.computed(), nil
}

// computeBatch is a BatchCompute that runs.
type computeBatch struct {
	*LinkUsecase
	service ServiceKey
	items   []*batchedCompute
	from    *PodID // of a Relocate: the pod whose links are moved; nil: none
}

// batchedCompute is one item of a computeBatch.
type batchedCompute struct {
	key     LinkKey
	request ComputeRequest
	link    Link     // as read last
	entry   podEntry // of the link's pod
	result  ComputedResult

	attempts    int
	wanted      ReserveRequest // of the last attempt
	reservation Reservation    // of the last attempt
}

func newComputeBatch(u *LinkUsecase, service ServiceKey, request *BatchComputeRequest) *computeBatch {
	batch := &computeBatch{LinkUsecase: u, service: service, items: make([]*batchedCompute, len(request.Items))}
	for i, item := range request.Items {
		key := LinkKey{Namespace: service.Namespace, UID: item.UID, Service: service.Service}
		batch.items[i] = &batchedCompute{key: key, request: request.request(item)}
	}
	return batch
}

// run computes the items. It returns an error if the store has answered for none of them.
func (b *computeBatch) run(ctx context.Context) error {
	pending, err := b.read(ctx)
	if err != nil {
		return err
	}
	for attempt := 0; len(pending) > 0 && attempt < maxComputeAttempts; attempt++ {
		pending = b.attempt(ctx, pending)
	}
	for _, item := range pending {
		item.fail(ErrContended)
	}
	b.describe(ctx)
	changes := make([]ChangeResult, len(b.items))
	for i, item := range b.items {
		changes[i].Err = item.result.Err
	}
	return unanswered(changes)
}

// read reads the links, and returns the items whose link is not to be returned as it is.
func (b *computeBatch) read(ctx context.Context) (pending []*batchedCompute, _ error) {
	uids := make([]string, len(b.items))
	for i, item := range b.items {
		uids[i] = item.key.UID
	}
	links, err := b.links.BatchGet(ctx, b.service.Namespace, b.service.Service, uids)
	if err != nil {
		return nil, notExecuted(err)
	}
	for i, item := range b.items {
		if err := links[i].Err; err != nil {
			item.fail(notExecuted(err))
			continue
		}
		item.found(links[i].Link, b.entryOf(ctx, links[i].Link))
		if !b.concerns(item.link) || item.entry.usable() && !item.request.leaves(item.link) {
			item.stays()
		} else {
			pending = append(pending, item)
		}
	}
	return pending, nil
}

// entryOf returns the pod of the link in the view.
func (b *computeBatch) entryOf(ctx context.Context, link Link) podEntry {
	if !link.Exists() {
		return podEntry{}
	}
	return b.pods.find(ctx, b.service, link.Pod)
}

func (i *batchedCompute) found(link Link, entry podEntry) { i.link, i.entry = link, entry }

func (i *batchedCompute) stays() { i.result = ComputedResult{Computed: existing(i.link, i.entry)} }

func (i *batchedCompute) fail(err error) {
	i.result = ComputedResult{Computed{LinkChange: LinkChange{Previous: NoPod, Link: NoLink(i.key)}}, err}
}

// attempt reserves pods for the items and links them, and returns those whose link was changed meanwhile.
func (b *computeBatch) attempt(ctx context.Context, pending []*batchedCompute) (again []*batchedCompute) {
	moving, moves := b.reserve(ctx, pending)
	if len(moving) == 0 {
		return nil
	}
	b.pods.prefetch(ctx, b.service)
	var unused []Reservation
	for i, result := range b.link(ctx, moves) {
		item := moving[i]
		outcome, isUnused, err := linked(result.LinkChange, result.Err)
		if isUnused && item.reservation.HeartbeatMs != 0 {
			unused = append(unused, item.reservation)
		}
		switch {
		case err != nil:
			item.fail(err)
		case outcome == 0:
			item.found(result.Link, b.entryOf(ctx, result.Link))
			if !b.concerns(item.link) {
				item.stays()
				continue
			}
			again = append(again, item)
		default:
			item.result = ComputedResult{Computed: Computed{Outcome: outcome, LinkChange: result.LinkChange}}
		}
	}
	b.releaseAll(ctx, unused)
	return again
}

// reserve decides about the items in one step, and returns those that are to be linked.
func (b *computeBatch) reserve(ctx context.Context, pending []*batchedCompute) (moving []*batchedCompute, moves []MoveItem) {
	requests := make([]ReserveRequest, len(pending))
	for i, item := range pending {
		item.attempts++
		item.wanted = item.request.wants(item.link, item.entry)
		requests[i] = item.wanted
	}
	for i, result := range b.pods.BatchReserve(ctx, b.service, requests) {
		item := pending[i]
		if result.Err != nil {
			item.fail(notExecuted(result.Err))
			continue
		}
		item.reservation = result.Reservation
		move, stays, err := item.wanted.decide(b.service, item.link, item.reservation)
		switch {
		case err != nil:
			item.fail(err)
		case stays:
			item.stays()
		default:
			moving = append(moving, item)
			moves = append(moves, MoveItem{item.key.UID, item.reservation.Pod, b.ttlOf(item), move})
		}
	}
	return moving, moves
}

// releaseAll undoes the reservations of links that were not made, like release.
func (b *computeBatch) releaseAll(ctx context.Context, unused []Reservation) {
	if len(unused) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), releaseTimeout)
	defer cancel()
	_ = b.pods.BatchRelease(ctx, b.service, unused)
}

// describe sets the pods of the links that were made, as far as they can be known soon. Those that are missing in the view may
// have first reported after it was read.
func (b *computeBatch) describe(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, describeTimeout)
	defer cancel()
	missing := b.describeFromView(ctx)
	if missing {
		b.pods.invalidate(b.service)
		b.describeFromView(ctx)
	}
}

// describeFromView sets the pods that are in the view, and reports whether one that has reported is not.
func (b *computeBatch) describeFromView(ctx context.Context) (missing bool) {
	entries := make(map[PodID]podEntry)
	for _, item := range b.items {
		made := item.result.Outcome == Created || item.result.Outcome == Relinked
		if !made || item.result.Pod != nil {
			continue
		}
		pod := item.result.Link.Pod
		entry, known := entries[pod]
		if !known {
			entry = b.pods.find(ctx, b.service, pod)
			entries[pod] = entry
		}
		item.result.Pod = entry.pod
		missing = missing || entry.pod == nil && item.reservation.HeartbeatMs != 0
	}
	return missing
}

// computed returns the results of the items.
func (b *computeBatch) computed() []ComputedResult {
	results := make([]ComputedResult, len(b.items))
	for i, item := range b.items {
		results[i] = item.result
	}
	return results
}

// results returns the results for the observer; err is that of the call.
func (b *computeBatch) results(err error) []ComputeResult {
	results := make([]ComputeResult, len(b.items))
	for i, item := range b.items {
		results[i] = ComputeResult{item.result.Outcome, item.attempts, item.result.Err}
		if results[i].Outcome == 0 && results[i].Err == nil {
			results[i].Err = err
		}
	}
	return results
}
