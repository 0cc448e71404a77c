package model

import (
	"context"
	"slices"

	"podlink/internal/biz"
)

// minute is how often the count of links given out is halved for a report that never expires, in ms.
const minute = 60_000

// Reserve implements biz.PodRepo.
func (r podRepo) Reserve(ctx context.Context, key biz.ServiceKey, request biz.ReserveRequest) (biz.Reservation, error) {
	var reservation biz.Reservation
	err := r.run(ctx, true, key, func(s *Store, v *service, now int64) { reservation = s.reserve(v, request, now) })
	if err != nil {
		return biz.Reservation{}, err
	}
	return reservation, nil
}

// reserve chooses a pod at the time. The caller must hold mu.
func (s *Store) reserve(v *service, request biz.ReserveRequest, now int64) biz.Reservation {
	if v == nil {
		return biz.Reservation{Outcome: biz.NeverReported}
	}
	v.runTimers(now)
	usable, doubtful := false, false
	switch {
	case request.Linked != biz.NoPod:
		linked := v.pods[request.Linked]
		if linked == nil && request.Known != nil && request.Known.Pod == request.Linked && !request.Leave {
			// A link that another caller put back, to a pod that has not reported yet.
			if _, fenced := v.fences[request.Linked]; !fenced && now-v.storeAt < 2*v.hearing.Least {
				return biz.Reservation{Outcome: biz.LinkedPodUsable}
			}
		}
		if linked != nil {
			alive := s.liveness(v, linked.Pod, now)
			doubtful = alive == biz.InDoubt
			usable = alive != biz.Dead && effective(linked, now) != biz.Shutdown
			usable = usable && (!doubtful || !request.DoubtOver || !v.ageless(now))
		}
		if usable && !request.Leave {
			return biz.Reservation{Outcome: biz.LinkedPodUsable}
		}
	case request.Known != nil:
		if reservation, ok := s.restore(v, request.Known.Pod, now); ok {
			return reservation
		}
	}
	var best *pod
	for _, id := range sortedKeys(v.pods) {
		p := v.pods[id]
		if s.takesNew(v, p, now) && wanted(p, request) && (best == nil || p.burden() < best.burden()) {
			best = p
		}
	}
	switch {
	case best != nil:
		return best.reserve(biz.Reserved, now)
	case usable || doubtful:
		return biz.Reservation{Outcome: biz.LinkedPodUsable}
	default:
		return biz.Reservation{Outcome: biz.NoPodAvailable}
	}
}

// restore puts a link back to the pod that the caller knows, if the store may have lost it.
func (s *Store) restore(v *service, id biz.PodID, now int64) (biz.Reservation, bool) {
	known := v.pods[id]
	_, fenced := v.fences[id]
	ttl := v.hearing.Least
	if known != nil {
		ttl = int64(known.TTL) * 1000
		if known.TTL == biz.Forever {
			ttl = 30_000
		}
	}
	switch {
	case now-v.storeAt >= 2*ttl:
	case known == nil && !fenced:
		return biz.Reservation{Outcome: biz.Restored, Pod: id}, true
	case known != nil && !known.buried && effective(known, now) == biz.Ready && s.liveness(v, known.Pod, now) == biz.Live:
		return known.reserve(biz.Restored, now), true
	}
	return biz.Reservation{}, false
}

func (p *pod) burden() int64 { return int64(p.Load) + p.Given }

func (p *pod) reserve(outcome biz.ReserveOutcome, now int64) biz.Reservation {
	if p.TTL == biz.Forever && p.Given == 0 {
		p.halve = now + minute
	}
	p.Given++
	return biz.Reservation{Outcome: outcome, Pod: p.Pod.Pod, HeartbeatMs: p.HeartbeatMs}
}

// effective returns the routing that applies at the time.
func effective(p *pod, now int64) biz.Routing {
	if p.CordonUntilMs != 0 && now >= p.CordonUntilMs {
		return p.Routing
	}
	return p.Effective()
}

func (s *Store) takesNew(v *service, p *pod, now int64) bool {
	return !p.buried && effective(p, now) == biz.Ready && s.liveness(v, p.Pod, now) == biz.Live &&
		(p.Capacity == biz.NoCapacity || p.burden() < int64(p.Capacity))
}

func wanted(p *pod, request biz.ReserveRequest) bool {
	for name, value := range request.Selector {
		if has, ok := p.Labels[name]; !ok || has != value {
			return false
		}
	}
	return !slices.Contains(request.Avoid, p.Pod.Pod) && (!request.Leave || request.Linked != p.Pod.Pod)
}

// ageless reports whether a READY pod never expires.
func (v *service) ageless(now int64) bool {
	for _, p := range v.pods {
		if p.TTL == biz.Forever && effective(p, now) == biz.Ready {
			return true
		}
	}
	return false
}

// runTimers lifts the cordons that have lapsed, and halves the counts of links given out that are due.
func (v *service) runTimers(now int64) {
	for _, p := range v.pods {
		if p.CordonUntilMs != 0 && now >= p.CordonUntilMs {
			p.Cordon, p.CordonUntilMs = biz.Ready, 0
		}
		if p.halve == 0 || now < p.halve {
			continue
		}
		p.Given >>= min(62, 1+(now-p.halve)/minute)
		p.halve = 0
		if p.Given > 0 {
			p.halve = now + minute
		}
	}
}

// Release implements biz.PodRepo.
func (r podRepo) Release(ctx context.Context, key biz.ServiceKey, reservation biz.Reservation) error {
	return r.run(ctx, true, key, func(_ *Store, v *service, _ int64) { v.release(reservation) })
}

// release releases a reservation, unless the pod has reported since. v is nil if the service has never reported.
func (v *service) release(reservation biz.Reservation) {
	if v == nil {
		return
	}
	if p := v.pods[reservation.Pod]; p != nil && p.HeartbeatMs == reservation.HeartbeatMs && p.Given > 0 {
		p.Given--
	}
}
