package telemetry

import (
	"sync"
	"time"

	"podlink/internal/biz"
)

const (
	// rosterTime is how long a pod is counted after it was last heard of, and after its report has ceased to count.
	rosterTime = time.Minute
	// maxServices and maxPods bound the memory of the roster.
	maxServices = 10_000
	maxPods     = 100_000
)

// podRoster is what this process last heard of pods, by their reports and by the readings for Compute. The gauges of pods
// are made of it, so that a scrape never asks the store.
//
// Its clock is this process', not the store's: whether a pod is live is decided by when it was heard of and by its ttl. It
// serves the metrics alone, and never decides about a link.
type podRoster struct {
	mu       sync.Mutex
	services map[biz.ServiceKey]*serviceRoster
	pods     int // of all services
}

// serviceRoster is the roster of one service.
type serviceRoster struct {
	heard time.Time // of the service last
	pods  map[biz.PodID]podRecord
}

// podRecord is what was last heard of a pod.
type podRecord struct {
	routing     biz.Routing
	heartbeatMs int64
	heard       time.Time
	diesAt      time.Time // zero: never
}

func newPodRoster() *podRoster { return &podRoster{services: make(map[biz.ServiceKey]*serviceRoster)} }

// recordOf returns the record of a pod that was heard of now. How old the report is already only the store knows: one that
// was read counts for a whole ttl, at most one too many.
func recordOf(pod biz.Pod, now time.Time) podRecord {
	record := podRecord{routing: pod.Routing, heartbeatMs: pod.HeartbeatMs, heard: now}
	switch {
	case !pod.Live:
		record.diesAt = now
	case pod.TTL != biz.Forever:
		record.diesAt = now.Add(time.Duration(pod.TTL) * time.Second)
	}
	return record
}

// report notes a pod's report.
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
	service.heard, service.pods[pod.Pod] = now, recordOf(pod, now)
	r.evict()
}

// read replaces what is known of the service by all of its pods, as they were at asOf or later. What was reported since
// then stays.
func (r *podRoster) read(key biz.ServiceKey, pods []biz.Pod, asOf time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	before := r.services[key]
	if before == nil {
		before = new(serviceRoster)
	}
	service := &serviceRoster{heard: asOf, pods: make(map[biz.PodID]podRecord, len(pods))}
	for _, pod := range pods {
		record := recordOf(pod, asOf)
		known := before.pods[pod.Pod]
		if known.heartbeatMs == record.heartbeatMs && known.diesAt.After(asOf) && known.diesAt.Before(record.diesAt) {
			record.diesAt = known.diesAt // The same report, whose age was known better.
		}
		service.pods[pod.Pod] = record
	}
	for id, known := range before.pods {
		if known.heard.After(asOf) {
			service.heard, service.pods[id] = before.heard, known
		}
	}
	r.services[key] = service
	r.pods += len(service.pods) - len(before.pods)
	r.evict()
}

// remove forgets a pod, and a service with its last one.
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

// evict forgets services, whichever, until the rest is within the bounds.
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
	podDead                     // is silent for longer than its ttl
)

var podStates = [...]string{podLive: "live", podDraining: "draining", podShutdown: "shutdown", podDead: "dead"}

func (p podRecord) state(now time.Time) podState {
	switch {
	case !p.diesAt.IsZero() && !now.Before(p.diesAt):
		return podDead
	case p.routing == biz.Shutdown:
		return podShutdown
	case p.routing == biz.DenyNew:
		return podDraining
	default:
		return podLive
	}
}

// over says that the pod is not counted any more. One that never dies is, when nothing was heard of it for rosterTime:
// nobody would tell this process that it is gone.
func (p podRecord) over(now time.Time) bool {
	return now.Sub(p.heard) > rosterTime && now.Sub(p.diesAt) > rosterTime
}

// count counts the pods, by state, and their services, and returns the age of what was heard longest ago. What is over it
// forgets.
func (r *podRoster) count() (pods [len(podStates)]int, services int, age time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := time.Now()
	for key, service := range r.services {
		for id, pod := range service.pods {
			if pod.over(now) {
				delete(service.pods, id)
				r.pods--
				continue
			}
			pods[pod.state(now)]++
			age = max(age, now.Sub(pod.heard))
		}
		if len(service.pods) == 0 && now.Sub(service.heard) > rosterTime {
			delete(r.services, key)
			continue
		}
		services++
		age = max(age, now.Sub(service.heard))
	}
	return pods, services, age
}
