package telemetry

import (
	"sync"
	"time"

	"podlink/internal/biz"
)

const (
	// rosterTTL is how long a pod stays in the roster after it was last seen, and after its report has expired.
	rosterTTL = time.Minute
	// maxServices and maxPods bound the roster's memory.
	maxServices = 10_000
	maxPods     = 100_000
)

// podRoster is the last known state of pods in this process, from their reports and from the readings for Compute. The gauges of
// pods are computed from it, so that a scrape does not query the store.
//
// It uses this process' clock, not the store's: a pod is live until its ttl has passed since it was seen. It is for metrics only,
// and decides nothing about links.
type podRoster struct {
	mu       sync.Mutex
	services map[biz.ServiceKey]*serviceRoster
	pods     int // of all services
}

// serviceRoster is the roster of one service.
type serviceRoster struct {
	seen time.Time // when the service was last seen
	pods map[biz.PodID]podRecord
}

// podRecord is the last known state of a pod.
type podRecord struct {
	routing     biz.Routing
	heartbeatMs int64
	seen        time.Time
	expiresAt   time.Time // zero: never
}

func newPodRoster() *podRoster { return &podRoster{services: make(map[biz.ServiceKey]*serviceRoster)} }

// recordOf returns the record of a pod seen now. Only the store knows the age of the report, so a pod that was read counts as
// live for a whole ttl from now: up to one ttl too long.
func recordOf(pod biz.Pod, now time.Time) podRecord {
	record := podRecord{routing: pod.Routing, heartbeatMs: pod.HeartbeatMs, seen: now}
	switch {
	case pod.Liveness != biz.Live:
		record.expiresAt = now
	case pod.TTL != biz.Forever:
		record.expiresAt = now.Add(time.Duration(pod.TTL) * time.Second)
	}
	return record
}

// report records a pod's report.
func (r *podRoster) report(key biz.ServiceKey, pod biz.Pod, now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	service := r.services[key]
	if service == nil {
		service = &serviceRoster{pods: make(map[biz.PodID]podRecord)}
		r.services[key] = service
	}
	if _, known := service.pods[pod.Pod]; !known {
		r.pods++
	}
	service.seen, service.pods[pod.Pod] = now, recordOf(pod, now)
	r.evict()
}

// read replaces the service's pods by those read from the store as of asOf. Reports since then are kept.
func (r *podRoster) read(key biz.ServiceKey, pods []biz.Pod, asOf time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	before := r.services[key]
	if before == nil {
		before = new(serviceRoster)
	}
	service := &serviceRoster{seen: asOf, pods: make(map[biz.PodID]podRecord, len(pods))}
	for _, pod := range pods {
		record := recordOf(pod, asOf)
		known := before.pods[pod.Pod]
		if known.heartbeatMs == record.heartbeatMs && known.expiresAt.After(asOf) && known.expiresAt.Before(record.expiresAt) {
			record.expiresAt = known.expiresAt // The same report: the earlier expiry is more accurate.
		}
		service.pods[pod.Pod] = record
	}
	for id, known := range before.pods {
		if known.seen.After(asOf) {
			service.seen, service.pods[id] = before.seen, known
		}
	}
	r.services[key] = service
	r.pods += len(service.pods) - len(before.pods)
	r.evict()
}

// remove removes a pod, and a service with its last pod.
func (r *podRoster) remove(key biz.ServiceKey, pod biz.PodID) {
	r.mu.Lock()
	defer r.mu.Unlock()
	service := r.services[key]
	if service == nil {
		return
	}
	if _, known := service.pods[pod]; known {
		delete(service.pods, pod)
		r.pods--
	}
	if len(service.pods) == 0 {
		delete(r.services, key)
	}
}

// evict removes arbitrary services until the roster is within its bounds.
func (r *podRoster) evict() {
	for key, service := range r.services {
		if len(r.services) <= maxServices && r.pods <= maxPods {
			return
		}
		delete(r.services, key)
		r.pods -= len(service.pods)
	}
}

// podState is the value of the label state of podlink_pods.
type podState int

const (
	podLive     podState = iota // takes new links
	podDraining                 // keeps its links
	podShutdown                 // takes none
	podDead                     // has not reported for longer than its ttl
)

var podStates = [...]string{podLive: "live", podDraining: "draining", podShutdown: "shutdown", podDead: "dead"}

func (p podRecord) state(now time.Time) podState {
	switch {
	case !p.expiresAt.IsZero() && !now.Before(p.expiresAt):
		return podDead
	case p.routing == biz.Shutdown:
		return podShutdown
	case p.routing == biz.DenyNew:
		return podDraining
	default:
		return podLive
	}
}

// stale reports whether to drop the pod. A pod without a ttl is dropped too when it was not seen for rosterTTL: its removal may
// have gone to another podlink.
func (p podRecord) stale(now time.Time) bool {
	return now.Sub(p.seen) > rosterTTL && now.Sub(p.expiresAt) > rosterTTL
}

// count returns the number of pods by state and of services, and the age of the oldest entry. It drops stale entries.
func (r *podRoster) count() (pods [len(podStates)]int, services int, age time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := time.Now()
	for key, service := range r.services {
		for id, pod := range service.pods {
			if pod.stale(now) {
				delete(service.pods, id)
				r.pods--
				continue
			}
			pods[pod.state(now)]++
			age = max(age, now.Sub(pod.seen))
		}
		if len(service.pods) == 0 && now.Sub(service.seen) > rosterTTL {
			delete(r.services, key)
			continue
		}
		services++
		age = max(age, now.Sub(service.seen))
	}
	return pods, services, age
}
