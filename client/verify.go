package client

import (
	"context"
	"slices"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	v1 "podlink/api/podlink/v1"
)

const (
	// checksPerSecond bounds the checks of sessions, which take less than a hundredth of a core so; where links are read one
	// by one, singleChecksPerSecond does.
	checksPerSecond, singleChecksPerSecond = 2000, 100
	// sweepsPerTTL is how often in a TTL the sessions are looked through for those whose check is due.
	sweepsPerTTL = 4
	// watchedTTLs is after how many TTLs the check of a session is due that a watch vouches for.
	watchedTTLs = 10
)

// sessionOrder is a list of sessions, those first whose check was begun first. sessions.mu guards it.
type sessionOrder struct{ first, last *userSession }

func (o *sessionOrder) push(x *userSession) {
	x.prev, x.next = o.last, nil
	if o.last == nil {
		o.first = x
	} else {
		o.last.next = x
	}
	o.last = x
}

func (o *sessionOrder) remove(x *userSession) {
	if x.prev == nil {
		o.first = x.next
	} else {
		x.prev.next = x.next
	}
	if x.next == nil {
		o.last = x.prev
	} else {
		x.next.prev = x.prev
	}
	x.prev, x.next = nil, nil
}

// checkedAt notes a check that was begun then. The caller holds s.mu; the session runs.
func (s *sessions) checkedAt(x *userSession, begun time.Time) {
	if begun.After(x.checked) {
		x.checked = begun
		s.order.remove(x)
		s.order.push(x)
	}
}

// oldestCheck returns how long ago the check of a session was begun at most; 0: there is none.
func (s *sessions) oldestCheck() time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.order.first == nil {
		return 0
	}
	return time.Since(s.order.first.checked)
}

// observe exports the age of the oldest check as a metric, until the function is called.
func (s *sessions) observe(meter metric.Meter) (end func()) {
	attributes := metric.WithAttributes(
		attribute.String("podlink.namespace", s.namespace), attribute.String("podlink.service", s.service),
		attribute.Int64("podlink.pod_id", int64(s.pod)),
	)
	gauge, err := meter.Float64ObservableGauge("podlink.client.session.check.age", metric.WithUnit("s"),
		metric.WithDescription("Time since the link of the session was verified whose check is the oldest."))
	if err != nil {
		s.log.Errorf("making a metric failed: %v", err)
		return func() {}
	}
	registration, err := meter.RegisterCallback(func(_ context.Context, to metric.Observer) error {
		to.ObserveFloat64(gauge, s.oldestCheck().Seconds(), attributes)
		return nil
	}, gauge)
	if err != nil {
		s.log.Errorf("making a metric failed: %v", err)
		return func() {}
	}
	return func() { _ = registration.Unregister() }
}

// sweep verifies the sessions until ctx ends: each after a TTL, and all at once when podlink may have moved or lost links.
// Where that would be more than checksPerSecond, it takes longer.
func (s *sessions) sweep(ctx context.Context) {
	between := growingPauses()
	away := false
	for ctx.Err() == nil {
		items := s.dueChecks(s.batches.size())
		if len(items) == 0 {
			s.sweepNow.wait(ctx, s.lease.ttl/sweepsPerTTL)
			continue
		}
		err := s.check(ctx, items)
		switch {
		case ctx.Err() != nil:
		case err != nil:
			if !away {
				s.log.Warnf("pod %d of %s: verifying its sessions failed, retrying: %v", s.pod, s.service, err)
			}
			away = true
			sleep(ctx, between.NextBackOff())
		default:
			if away {
				s.log.Infof("pod %d of %s: verifying its sessions again", s.pod, s.service)
			}
			away = false
			between.Reset()
			rate := checksPerSecond
			if s.batches.batchless.now() {
				rate = singleChecksPerSecond
			}
			sleep(ctx, time.Duration(len(items))*time.Second/time.Duration(rate))
			if len(items) < s.batches.size() { // The others are not due yet, and are better checked together.
				s.sweepNow.wait(ctx, s.lease.ttl/sweepsPerTTL)
			}
		}
	}
}

// dueChecks returns at most n sessions whose check is due, the oldest first.
func (s *sessions) dueChecks(n int) []*v1.BatchVerifyLinkedPodRequest_Item {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	due, retry := s.dueBefore(now), now.Add(-s.lease.ttl/sweepsPerTTL)
	items := s.urgentChecks(n, now)
	for x := s.order.first; x != nil && len(items) < n && !x.checked.After(due); x = x.next {
		if x.urgent.IsZero() && (x.unread.IsZero() || !x.unread.After(retry)) {
			items = append(items, &v1.BatchVerifyLinkedPodRequest_Item{Uid: x.uid, Epoch: x.epoch.Load()})
		}
	}
	return items
}

// dueBefore returns the time of the last check from which on the next one is due. The caller holds s.mu.
func (s *sessions) dueBefore(now time.Time) time.Time {
	ttl := s.lease.ttl
	due := now.Add(-ttl)
	if since := s.watchedSince(now, ttl); !since.IsZero() {
		if begun := now.Sub(since); begun < ttl { // Those of before are not due all at once.
			since = since.Add(-watchedTTLs * (ttl - begun))
		}
		if since.Before(due) {
			due = since
		}
		if latest := now.Add(-watchedTTLs * ttl); latest.After(due) {
			due = latest
		}
	}
	if s.suspect.After(due) {
		due = s.suspect
	}
	return due
}

// urgentChecks returns at most n sessions whose links have changed, as a watch says, and forgets those that were checked since. The
// caller holds s.mu.
func (s *sessions) urgentChecks(n int, now time.Time) (items []*v1.BatchVerifyLinkedPodRequest_Item) {
	s.urgent = slices.DeleteFunc(s.urgent, func(x *userSession) bool {
		if x.urgent.IsZero() || x.state != sessionRunning {
			x.hurried = false
			return true
		}
		if len(items) < n && !x.urgent.After(now) {
			items = append(items, &v1.BatchVerifyLinkedPodRequest_Item{Uid: x.uid, Epoch: x.epoch.Load()})
		}
		return false
	})
	return items
}

// changed makes the session of a user be verified at once whose link a watch says to be another one: only what podlink answers counts.
func (s *sessions) changed(c *v1.LinkChange) {
	s.mu.Lock()
	defer s.mu.Unlock()
	x := s.byUID[c.GetLink().GetUid()]
	if x == nil || x.state != sessionRunning {
		return
	}
	held := entry{pod: s.pod, epoch: x.epoch.Load(), persistent: true}
	what := held.effectOf(c)
	if what == effectNone {
		return
	}
	if !x.hurried {
		x.hurried = true
		s.urgent = append(s.urgent, x)
	}
	x.urgent = time.Now()
	if what == effectUnset { // It may still happen.
		x.unsure = x.urgent.Add(unsureFor)
	}
	s.sweepNow.set()
}

// check verifies the links of these sessions, and takes in what podlink answers.
func (s *sessions) check(ctx context.Context, items []*v1.BatchVerifyLinkedPodRequest_Item) error {
	begun := s.now()
	wrong, unread, err := s.batches.verify(ctx, items)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, item := range items {
		x := s.byUID[item.GetUid()]
		if x == nil || x.state != sessionRunning {
			continue
		}
		if begun.After(x.urgent) {
			x.urgent, x.unsure = x.unsure, time.Time{}
		}
		link := wrong[item.GetUid()]
		switch {
		case unread[item.GetUid()]:
			x.unread = begun
		case link != nil:
			s.judge(x, link, begun)
		default:
			s.judge(x, &v1.Link{PodId: s.pod, Epoch: item.GetEpoch(), Claim: s.generation}, begun)
		}
	}
	return nil
}

// saw takes in a link that the guard has read by a call that was begun then.
func (s *sessions) saw(uid string, link *v1.Link, begun time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if x := s.byUID[uid]; x != nil && x.state == sessionRunning {
		s.judge(x, link, begun)
	}
}
