package biz

import (
	"context"
	"time"
)

const (
	// maxDoubt is how long a pod is in doubt at most in a service with a live READY pod that never expires. Such a service may
	// never be heard again, so that no other report would find the pod dead.
	maxDoubt = 10 * time.Minute
	// maxReadGap is the longest time between two reads that still counts as reading each second.
	maxReadGap = 2 * maxViewAge
	// maxFollowed is the maximum number of services that are read without a compute.
	maxFollowed = 100
)

// storeClock estimates the store's clock: the last report of the service plus the time since this process first read it. It
// runs behind by the time that passed between the two, so a lapsed cordon counts as lifted late, never early. It decides
// nothing: only the reply of a compute and the metrics use it.
type storeClock struct {
	last int64
	seen time.Time
}

func (c *storeClock) now(last int64, asOf time.Time) int64 {
	if c.seen.IsZero() || last != c.last {
		c.last, c.seen = last, asOf
	}
	return last + max(0, asOf.Sub(c.seen)).Milliseconds()
}

// storeNow returns the estimate of the store's clock at a read of the service.
func (v *PodViews) storeNow(service *serviceView, hearing Hearing, asOf time.Time) int64 {
	v.mu.Lock()
	defer v.mu.Unlock()
	return service.clock.now(hearing.Last, asOf)
}

// doubtWatch measures how long the pods of a service are in doubt, in an unbroken series of reads.
type doubtWatch struct {
	asOf     time.Time // of the last read; zero: the series is broken
	records  map[PodID]doubtRecord
	watching bool // the service is to be read each second: a pod is in doubt, and its doubt is not over
}

// doubtRecord is the doubt about one report of a pod.
type doubtRecord struct {
	heartbeatMs int64
	since       time.Time // the first read of the series with the pod in doubt
	over        bool      // stays until the pod reports
}

// read continues the series, and sets doubtOver of the pods.
func (w *doubtWatch) read(pods map[PodID]podEntry, asOf time.Time) {
	if asOf.Before(w.asOf) {
		return // A later read has ended first.
	}
	broken, before := asOf.Sub(w.asOf) > maxReadGap, w.records
	*w = doubtWatch{asOf: asOf}
	if before == nil && !anyPod(pods, Pod.inDoubt) {
		return
	}
	w.records = make(map[PodID]doubtRecord)
	hasEternal := anyPod(pods, Pod.eternal)
	for id, entry := range pods {
		if !entry.pod.inDoubt() {
			continue
		}
		record := before[id]
		if record.since.IsZero() || record.heartbeatMs != entry.pod.HeartbeatMs || broken && !record.over {
			record = doubtRecord{heartbeatMs: entry.pod.HeartbeatMs, since: asOf}
		}
		record.over = record.over || asOf.Sub(record.since) >= maxDoubt
		w.records[id] = record
		w.watching = w.watching || !record.over
		entry.doubtOver = record.over && hasEternal
		pods[id] = entry
	}
}

// fail breaks the series: a read had no result.
func (w *doubtWatch) fail() { w.asOf, w.watching = time.Time{}, false }

// inDoubt reports whether the pod is in doubt and keeps its links as long as it is.
func (p Pod) inDoubt() bool { return p.Liveness == InDoubt && p.Effective() != Shutdown }

// eternal reports whether the pod takes new links and never expires.
func (p Pod) eternal() bool { return p.TTL == Forever && p.Effective() == Ready }

func anyPod(pods map[PodID]podEntry, is func(Pod) bool) bool {
	for _, entry := range pods {
		if is(*entry.pod) {
			return true
		}
	}
	return false
}

// follow reads the service again after a second, even without a compute, while a pod is in doubt. Otherwise the doubt about a
// pod of a service with few computes would never be over, and the metrics would lose sight of a silent service. The caller must
// hold mu.
func (v *PodViews) follow(key ServiceKey, service *serviceView) {
	if !service.doubt.watching || service.pending || v.stopped || v.followed >= maxFollowed {
		return
	}
	service.pending = true
	v.followed++
	time.AfterFunc(maxViewAge, func() {
		v.mu.Lock()
		defer v.mu.Unlock()
		service.pending = false
		v.followed--
		if v.services[key] == service && service.doubt.watching && !v.stopped {
			v.current(context.Background(), key)
			v.follow(key, service)
		}
	})
}

// expectReports reads the service once none of its pods has reported to this process for the ttl: it may be silent, and then
// it is to be seen in the metrics even if no user of it is computed.
func (v *PodViews) expectReports(key ServiceKey, ttl time.Duration) {
	v.mu.Lock()
	defer v.mu.Unlock()
	service := v.service(key)
	if service.silence != nil {
		service.silence.Reset(ttl)
		return
	}
	service.silence = time.AfterFunc(ttl, func() {
		v.mu.Lock()
		defer v.mu.Unlock()
		if v.services[key] == service {
			service.doubt.watching = true // Until it is read.
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
		if service.silence != nil {
			service.silence.Stop()
		}
	}
}
