package biz

import "time"

const (
	// maxDoubt is how long a pod is in doubt at most in a service with a live READY pod that never expires. Such a service may
	// never be heard again, so that no other report would find the pod dead.
	maxDoubt = 10 * time.Minute
	// maxReadGap is the longest time between two reads that still counts as reading each second.
	maxReadGap = 2 * maxViewAge
	// maxFollowed is the maximum number of services that are read without a compute each second, and of those that are read
	// every silentReadInterval.
	maxFollowed = 100
	// silentReadInterval is the time between reads of a service whose pods are in doubt for longer than maxDoubt. It is short
	// enough that the metrics keep the service when a read fails.
	silentReadInterval = 20 * time.Second
)

// storeClock estimates the store's clock: the last report of the service plus the time since this process stored it or first
// read it. It runs behind by the time that passed between the two, so a lapsed cordon counts as lifted late, never early. It
// decides nothing: only the reply of a compute and the metrics use it.
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

// stored starts the clock at a report that this process has stored. Otherwise it would start at the first read, and a service
// that was never read before it fell silent would look live for another ttl.
func (c *storeClock) stored(heartbeatMs int64, now time.Time) {
	if heartbeatMs > c.last {
		c.last, c.seen = heartbeatMs, now
	}
}

// storeNow returns the estimate of the store's clock at a read of the service.
func (v *PodViews) storeNow(service *serviceView, hearing Hearing, asOf time.Time) int64 {
	v.mu.Lock()
	defer v.mu.Unlock()
	return service.clock.now(hearing.Last, asOf)
}

// doubtWatch measures how long the pods of a service are in doubt, in an unbroken series of reads.
type doubtWatch struct {
	asOf    time.Time // of the last read; zero: the series is broken
	records map[PodID]doubtRecord
	every   time.Duration // how often to read the service without a compute, as pods are in doubt; 0: not at all
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
		entry.doubtOver = record.over && hasEternal
		pods[id] = entry
		switch {
		case !record.over:
			w.every = maxViewAge
		case !entry.doubtOver && w.every == 0: // Only the metrics need to know when it reports again.
			w.every = silentReadInterval
		}
	}
}

// fail breaks the series: a read had no result. The next read may have one.
func (w *doubtWatch) fail() { w.asOf = time.Time{} }

// inDoubt reports whether the pod is in doubt and keeps its links as long as it is.
func (p Pod) inDoubt() bool { return p.Liveness == InDoubt && p.Effective() != Shutdown }

// eternal reports whether the pod takes new links and never expires.
func (p Pod) eternal() bool { return p.TTL == Forever && p.Effective() == Ready }

func anyPod(pods map[PodID]podEntry, is func(Pod) bool) bool {
	for _, entry := range pods {
		if is(entry.pod.Pod) {
			return true
		}
	}
	return false
}
