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
// It uses this process' clock, not the store's: a pod is live until its ttl has passed since it was seen. Whether it is in doubt
// or dead then is the judgement of a reading; until there is one, it is dead if its service was heard since. It is for metrics
// only, and decides nothing about links.
type podRoster struct {
	mu       sync.Mutex
	services map[biz.ServiceKey]*serviceRoster
	pods     int // of all services
}

// serviceRoster is the roster of one service.
type serviceRoster struct {
	seen  time.Time // when the service was last seen
	heard time.Time // when a new report of it was last seen
	pods  map[biz.PodID]podRecord
}

// podRecord is the last known state of a pod.
type podRecord struct {
	routing     biz.Routing  // the effective one
	liveness    biz.Liveness // as of seen
	heartbeatMs int64
	seen        time.Time
	expiresAt   time.Time // zero: never
}

func newPodRoster() *podRoster { return &podRoster{services: make(map[biz.ServiceKey]*serviceRoster)} }

// recordOf returns the record of a pod seen now. Only the store knows the age of the report, so a pod that was read counts as
// live for a whole ttl from now: up to one ttl too long.
func recordOf(pod biz.Pod, now time.Time) podRecord {
	record := podRecord{routing: pod.Effective(), liveness: pod.Liveness, heartbeatMs: pod.HeartbeatMs, seen: now}
	switch {
	case pod.Liveness != biz.Live:
		record.expiresAt = now
	case pod.TTL != biz.Forever:
		record.expiresAt = now.Add(time.Duration(pod.TTL) * time.Second)
	}
	return record
}

// since keeps the expiry of a record of the same report, which is more accurate when it is earlier.
func (p podRecord) since(known podRecord) podRecord {
	if p.heartbeatMs == known.heartbeatMs && !known.expiresAt.IsZero() && known.expiresAt.Before(p.expiresAt) {
		p.expiresAt = known.expiresAt
	}
	return p
}

// report records a pod's report, or another change of the pod.
func (r *podRoster) report(key biz.ServiceKey, pod biz.Pod, now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	service := r.services[key]
	if service == nil {
		service = &serviceRoster{pods: make(map[biz.PodID]podRecord)}
		r.services[key] = service
	}
	known, found := service.pods[pod.Pod]
	if !found {
		r.pods++
	}
	if known.heartbeatMs != pod.HeartbeatMs || !found {
		service.heard = now
	}
	service.seen, service.pods[pod.Pod] = now, recordOf(pod, now).since(known)
	r.evict()
}

// read replaces the service's pods by those read from the store as of asOf. Reports since then are kept, and so are pods that
// were silent: the reading has none that are dead for long.
func (r *podRoster) read(key biz.ServiceKey, pods []biz.Pod, asOf time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	before := r.services[key]
	if before == nil {
		before = new(serviceRoster)
	}
	service := &serviceRoster{seen: asOf, heard: before.heard, pods: make(map[biz.PodID]podRecord, len(pods))}
	for _, pod := range pods {
		record := recordOf(pod, asOf)
		if known, found := before.pods[pod.Pod]; found {
			if known.heartbeatMs != record.heartbeatMs {
				service.heard = asOf
			}
			record = record.since(known)
		}
		service.pods[pod.Pod] = record
	}
	for id, known := range before.pods {
		_, found := service.pods[id]
		switch {
		case known.seen.After(asOf):
			service.seen, service.heard, service.pods[id] = before.seen, before.heard, known
		case !found && known.expired(asOf):
			known.liveness = biz.Dead
			service.pods[id] = known
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
	podInDoubt                  // is silent and keeps its links, for perhaps it could not report
	podDead                     // is silent, and other pods were heard
)

var podStates = [...]string{
	podLive: "live", podDraining: "draining", podShutdown: "shutdown", podInDoubt: "in_doubt", podDead: "dead",
}

// state returns the state of a pod of the service.
func (s *serviceRoster) state(p podRecord, now time.Time) podState {
	silent := p.expired(now)
	switch {
	case silent && (p.liveness == biz.Dead || p.liveness == biz.Live && s.heard.After(p.expiresAt)):
		return podDead
	case p.routing == biz.Shutdown:
		return podShutdown
	case silent:
		return podInDoubt
	case p.routing == biz.DenyNew:
		return podDraining
	default:
		return podLive
	}
}

func (p podRecord) expired(now time.Time) bool {
	return !p.expiresAt.IsZero() && !now.Before(p.expiresAt)
}

// stale reports whether to drop the pod. A pod without a ttl is dropped too when it was not seen for rosterTTL: its removal may
// have gone to another podlink.
func (p podRecord) stale(now time.Time) bool {
	return now.Sub(p.seen) > rosterTTL && now.Sub(p.expiresAt) > rosterTTL
}

// podCounts are the sums over the roster.
type podCounts struct {
	pods     [len(podStates)]int
	services int
	silent   int           // services with a pod in doubt and no live one
	age      time.Duration // of the oldest entry
}

// count returns the sums, and drops stale entries.
func (r *podRoster) count() podCounts {
	r.mu.Lock()
	defer r.mu.Unlock()
	var all podCounts
	now := time.Now()
	for key, service := range r.services {
		var pods [len(podStates)]int
		for id, pod := range service.pods {
			if pod.stale(now) {
				delete(service.pods, id)
				r.pods--
				continue
			}
			pods[service.state(pod, now)]++
			all.age = max(all.age, now.Sub(pod.seen))
		}
		if len(service.pods) == 0 && now.Sub(service.seen) > rosterTTL {
			delete(r.services, key)
			continue
		}
		for state, n := range pods {
			all.pods[state] += n
		}
		if pods[podInDoubt] > 0 && pods[podLive]+pods[podDraining] == 0 {
			all.silent++
		}
		all.services++
		all.age = max(all.age, now.Sub(service.seen))
	}
	return all
}
