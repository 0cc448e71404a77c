package model

import (
	"context"
	"maps"
	"slices"

	"podlink/internal/biz"
	"podlink/internal/biz/biztest"
)

// podRepo implements biz.PodRepo.
type podRepo struct{ *Podlink }

// service is a service that has reported.
type service struct {
	hearing   biz.Hearing
	pods      map[biz.PodID]*pod
	fences    map[biz.PodID]fence // of removed pods that had an instance
	storeID   string
	storeAt   int64    // in ms
	primaries []string // that podlinks have seen, the latest last
}

// pod is a report with what is not shown of it.
type pod struct {
	biz.Pod
	fence
	buried bool  // out of the way: dead for certain
	halve  int64 // when to halve Given, in ms; 0: never
}

// fence is what the store knows about the processes of a pod.
type fence struct {
	generation            biz.Generation
	sequence              int64
	instance, predecessor string
	at                    int64 // of the removal, in ms
}

func (v *service) clone() *service {
	c := *v
	c.pods, c.fences, c.primaries = make(map[biz.PodID]*pod, len(v.pods)), maps.Clone(v.fences), slices.Clone(v.primaries)
	for id, p := range v.pods {
		stored := *p
		c.pods[id] = &stored
	}
	return &c
}

func (v *service) pass(ms int64) {
	v.hearing.Last -= ms
	v.storeAt -= ms
	for id, f := range v.fences {
		f.at -= ms
		v.fences[id] = f
	}
	for _, p := range v.pods {
		p.HeartbeatMs -= ms
		if p.CordonUntilMs != 0 {
			p.CordonUntilMs -= ms
		}
		if p.halve != 0 {
			p.halve -= ms
		}
	}
}

// prepare makes a write of a service undoable, if a failover may be asked for.
func (s *Store) prepareService(key biz.ServiceKey) {
	if s.keep == 0 {
		return
	}
	if v := s.services[key]; v != nil {
		before := v.clone()
		s.remember(func() { s.services[key] = before })
	} else {
		s.remember(func() { delete(s.services, key) })
	}
}

func (s *Store) liveness(v *service, p biz.Pod, now int64) biz.Liveness {
	if s.judging != nil {
		return s.judging(v.hearing, p, now)
	}
	return v.hearing.Liveness(p.TTL, p.HeartbeatMs, p.HeardMs, now)
}

// shown returns the pod as replies contain it.
func (s *Store) shown(v *service, p *pod, now int64) biz.Pod {
	one := biz.PodsView{Pods: []biz.Pod{p.Pod}, Hearing: v.hearing}
	one.Judge(now)
	shown := one.Pods[0]
	shown.Liveness = s.liveness(v, shown, now)
	return shown
}

// run carries out a request about a service at the moment of the request, with the time in ms. The service is nil if no pod has
// reported.
func (r podRepo) run(ctx context.Context, write bool, key biz.ServiceKey, do func(s *Store, v *service, now int64)) error {
	return r.call(ctx, write, func() {
		now := r.store.micros() / 1000
		if write {
			r.store.prepareService(key)
		}
		do(r.store, r.store.services[key], now)
	})
}

// List implements biz.PodRepo.
func (r podRepo) List(ctx context.Context, key biz.ServiceKey) ([]biz.Pod, error) {
	pods := []biz.Pod{}
	err := r.run(ctx, false, key, func(s *Store, v *service, now int64) {
		if v == nil {
			return
		}
		for _, id := range sortedKeys(v.pods) {
			pods = append(pods, s.shown(v, v.pods[id], now))
		}
	})
	if err != nil {
		return nil, err
	}
	return pods, nil
}

// View implements biz.PodRepo.
func (r podRepo) View(ctx context.Context, key biz.ServiceKey) (biz.PodsView, error) {
	var view biz.PodsView
	err := r.run(ctx, false, key, func(s *Store, v *service, now int64) {
		if v == nil {
			return
		}
		view.Hearing = v.hearing
		for _, id := range sortedKeys(v.pods) {
			p := v.pods[id]
			if p.buried || s.judging != nil && s.liveness(v, p.Pod, now) == biz.Dead {
				continue
			}
			view.Pods = append(view.Pods, p.Pod)
		}
	})
	if err != nil {
		return biz.PodsView{}, err
	}
	return view, nil
}

// Get implements biz.PodRepo.
func (r podRepo) Get(ctx context.Context, key biz.ServiceKey, id biz.PodID) (biz.Pod, error) {
	var got biz.Pod
	there := false
	err := r.run(ctx, false, key, func(s *Store, v *service, now int64) {
		if v != nil && v.pods[id] != nil {
			got, there = s.shown(v, v.pods[id], now), true
		}
	})
	switch {
	case err != nil:
		return biz.Pod{}, err
	case !there:
		return biz.Pod{}, biz.ErrPodNotFound
	}
	return got, nil
}

// Cordon implements biz.PodRepo.
func (r podRepo) Cordon(
	ctx context.Context, key biz.ServiceKey, id biz.PodID, cordon biz.Routing, ttl biz.TTL,
) (biz.Pod, error) {
	var got biz.Pod
	there := false
	err := r.run(ctx, true, key, func(s *Store, v *service, now int64) {
		if v == nil || v.pods[id] == nil {
			return
		}
		p := v.pods[id]
		p.Cordon, p.CordonUntilMs = cordon, 0
		if cordon != biz.Ready && ttl != biz.Forever {
			p.CordonUntilMs = now + int64(ttl)*1000
		}
		got, there = s.shown(v, p, now), true
	})
	switch {
	case err != nil:
		return biz.Pod{}, err
	case !there:
		return biz.Pod{}, biz.ErrPodNotFound
	}
	return got, nil
}

// Remove implements biz.PodRepo.
func (r podRepo) Remove(ctx context.Context, key biz.ServiceKey, id biz.PodID) (*biz.Pod, error) {
	var previous *biz.Pod
	err := r.run(ctx, true, key, func(s *Store, v *service, now int64) {
		if v == nil || v.pods[id] == nil {
			return
		}
		p := v.pods[id]
		removed := s.shown(v, p, now)
		previous = &removed
		delete(v.pods, id)
		if p.generation != 0 {
			v.fences[id] = p.fence
			f := v.fences[id]
			f.at = now
			v.fences[id] = f
		}
	})
	if err != nil {
		return nil, err
	}
	return previous, nil
}

// Set implements biz.PodRepo.
func (r podRepo) Set(ctx context.Context, key biz.ServiceKey, report biz.Report) (biz.ReportResult, error) {
	var result biz.ReportResult
	var failure error
	primaries := r.primaries()
	err := r.run(ctx, true, key, func(s *Store, v *service, now int64) {
		result, failure = r.set(s, v, key, report, primaries, now)
	})
	switch {
	case err != nil:
		return biz.ReportResult{}, err
	case failure != nil:
		return biz.ReportResult{}, failure
	}
	return result, nil
}

// set stores a report at the time. The caller must hold mu.
func (r podRepo) set(
	s *Store, v *service, key biz.ServiceKey, report biz.Report, primaries string, now int64,
) (biz.ReportResult, error) {
	var before *pod
	var stored fence
	fenced := false
	if v != nil {
		before = v.pods[report.Pod]
		stored, fenced = v.fences[report.Pod]
		if before != nil {
			stored, fenced = before.fence, false
		}
	}
	next, late, err := succeed(stored, fenced, before, report, s.last, now)
	if err != nil {
		return biz.ReportResult{}, err
	}
	if late {
		result := biz.ReportResult{StoreID: v.storeID}
		if before != nil {
			result.Pod = s.shown(v, before, now)
		} else {
			result.Pod = biz.Pod{Report: report}
			result.Pod.Generation, result.Pod.Supersedes = next.generation, 0
		}
		return result, nil
	}
	if v != nil {
		if err := r.limit(s, v, before, fenced, report, now); err != nil {
			return biz.ReportResult{}, err
		}
	}
	result := biz.ReportResult{Applied: true}
	if before != nil {
		previous := s.shown(v, before, now)
		result.Previous = &previous
	}
	if v == nil {
		v = &service{pods: make(map[biz.PodID]*pod), fences: make(map[biz.PodID]fence)}
		v.hearing = biztest.Advance(nil, now, report.TTL)
		s.services[key] = v
	} else {
		v.hearing = biztest.Advance(&v.hearing, now, report.TTL)
	}
	p := &pod{Pod: biz.Pod{Report: report, HeartbeatMs: now, HeardMs: v.hearing.Heard}, fence: next}
	p.Supersedes, p.Generation, p.Labels = 0, next.generation, nil
	if len(report.Labels) > 0 {
		p.Labels = maps.Clone(report.Labels)
	}
	if before != nil && (before.CordonUntilMs == 0 || now < before.CordonUntilMs) {
		p.Cordon, p.CordonUntilMs = before.Cordon, before.CordonUntilMs
	}
	v.pods[report.Pod] = p
	delete(v.fences, report.Pod)
	v.age(report.Pod, now-r.ForgetAfter.Milliseconds())
	v.see(primaries, now)
	result.Pod, result.StoreID = s.shown(v, p, now), v.storeID
	return result, nil
}

// succeed decides which process reports: what is stored of it then, and whether its report is late. The error says that another
// process has taken over the pod.
func succeed(stored fence, fenced bool, before *pod, report biz.Report, nowUs, nowMs int64) (next fence, late bool, err error) {
	next = fence{stored.generation, report.Sequence, report.Instance, stored.predecessor, 0}
	switch {
	case report.Instance == "":
		next.sequence = stored.sequence
		if before != nil && before.Instance != "" {
			validity := int64(90_000)
			if before.TTL != biz.Forever {
				validity = 3000 * int64(before.TTL)
			}
			late = nowMs <= before.HeartbeatMs+validity
		}
	case report.Generation != 0:
		if report.Generation < stored.generation {
			return fence{}, false, &biz.SupersededError{Generation: stored.generation}
		}
		late = report.Generation == stored.generation && report.Sequence <= stored.sequence
		if !late {
			next.generation = report.Generation
		}
	case report.Instance == stored.instance:
		late = report.Sequence <= stored.sequence
	case (report.Supersedes == stored.generation || fenced && report.Supersedes == 0 && report.Instance != stored.predecessor) &&
		stored.generation < biz.MaxGeneration:
		next.generation = max(stored.generation+1, biz.Generation(nowUs))
	default:
		final := report.Instance == stored.predecessor
		return fence{}, false, &biz.SupersededError{Generation: stored.generation, Final: final}
	}
	if !late && report.Instance != "" && report.Instance != stored.instance && stored.instance != "" {
		next.predecessor = stored.instance
	}
	return next, late, nil
}
