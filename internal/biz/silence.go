package biz

import (
	"context"
	"time"
)

// silenceCheck is a read of a service, without a compute, when none of its pods may be live any more.
type silenceCheck struct {
	timer *time.Timer // nil: no pod has reported to this process
	due   bool        // the timer has fired, and the service was not read since
	last  int64       // the last report that the previous check found; 0: there was no check since a report to this process
}

// expectReports checks the service once none of its pods has reported to this process for the ttl of the pod: it may be silent,
// and then it is to be seen in the metrics even if no user of it is computed.
func (v *PodViews) expectReports(key ServiceKey, pod Pod) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if pod.TTL == Forever {
		if service := v.services[key]; service != nil {
			service.clock.stored(pod.HeartbeatMs, time.Now())
		}
		return
	}
	service := v.service(key)
	service.clock.stored(pod.HeartbeatMs, time.Now())
	silence, ttl := &service.silence, time.Duration(pod.TTL)*time.Second
	silence.due, silence.last = false, 0
	if silence.timer != nil {
		silence.timer.Reset(ttl)
		return
	}
	silence.timer = time.AfterFunc(ttl, func() {
		v.mu.Lock()
		defer v.mu.Unlock()
		if v.services[key] == service && !v.stopped {
			silence.due = true
			v.follow(key, service)
		}
	})
}

// checked ends a check. If no pod was in doubt, there is another one when the next pod may be: the pods have different ttl, or
// the last report is one that this process did not know. The checks end when pods go on to report, but not to this process. The
// caller must hold mu.
func (s *serviceView) checked(pods map[PodID]podEntry, asOf time.Time) {
	if !s.silence.due {
		return
	}
	previous, last := s.silence.last, s.clock.last
	s.silence.due, s.silence.last = false, last
	if s.doubt.every != 0 || previous != 0 && previous != last {
		return
	}
	now, next := s.clock.now(last, asOf), int64(-1)
	for _, entry := range pods {
		if pod := entry.pod; pod.TTL != Forever && pod.Liveness == Live && pod.Effective() != Shutdown {
			expiresIn := max(0, pod.HeartbeatMs+int64(pod.TTL)*1000-now)
			if next < 0 || expiresIn < next {
				next = expiresIn
			}
		}
	}
	if next >= 0 {
		s.silence.timer.Reset(time.Duration(next) * time.Millisecond)
	}
}

// readEvery returns how often to read the service without a compute. 0: not at all.
func (s *serviceView) readEvery() time.Duration {
	if s.silence.due {
		return maxViewAge
	}
	return s.doubt.every
}

// follow reads the service again later, even without a compute, while a pod is in doubt. Otherwise the doubt about a pod of a
// service with few computes would never be over, and the metrics would lose sight of a silent service. The caller must hold mu.
func (v *PodViews) follow(key ServiceKey, service *serviceView) {
	every := service.readEvery()
	if every == 0 || service.pending || v.stopped || v.followed[every] >= maxFollowed {
		return
	}
	service.pending = true
	v.followed[every]++
	time.AfterFunc(every, func() {
		v.mu.Lock()
		defer v.mu.Unlock()
		service.pending = false
		v.followed[every]--
		if v.services[key] == service && service.readEvery() != 0 && !v.stopped {
			v.current(context.Background(), key)
			v.follow(key, service)
		}
	})
}

// Stop ends the reads without a compute. Call it before the store is closed.
func (v *PodViews) Stop() {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.stopped = true
	for _, service := range v.services {
		if service.silence.timer != nil {
			service.silence.timer.Stop()
		}
	}
}
