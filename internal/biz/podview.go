package biz

import (
	"context"
	"errors"
	"sync"
	"time"
)

const (
	// maxViewAge is the maximum age of a view.
	maxViewAge = time.Second
	// maxViews is the maximum number of services with a view.
	maxViews = 10_000
)

// PodViews is a PodRepo with a cache, per service and for at most a second, of its pods. So a compute of an existing link need
// not read the pods each time. Changes by this process are visible at once; changes by other processes, and a pod that stops
// reporting, up to a second later.
type PodViews struct {
	PodRepo
	observer Observer

	mu       sync.Mutex
	services map[ServiceKey]*serviceView
	followed map[time.Duration]int // services with a pending read, by its interval: see follow
	stopped  bool
}

// serviceView is what this process knows about the pods of one service. Guarded by PodViews.mu.
type serviceView struct {
	view    *podView // nil: none, or out of date
	clock   storeClock
	doubt   doubtWatch
	silence silenceCheck
	pending bool // a read without a compute is scheduled
}

// podView is one read of a service. Concurrent callers share it. Guarded by PodViews.mu, except done.
type podView struct {
	done chan struct{} // closed when the read has ended
	asOf time.Time     // zero: the read failed
	pods map[PodID]podEntry
}

// podEntry is a pod of a view.
type podEntry struct {
	pod       *SharedPod // nil: not in the view
	doubtOver bool       // the pod is in doubt, but not for ReserveRequest.DoubtOver
}

// usable reports whether the pod is usable for an existing link. False means that the store has to decide: the pod is not
// usable, it is unknown, or the read of the service failed.
func (e podEntry) usable() bool {
	return e.pod != nil && e.pod.Liveness != Dead && e.pod.Effective() != Shutdown && !e.doubtOver
}

// NewPodViews returns the repo with a cache of its pods.
func NewPodViews(pods PodRepo, observer Observer) *PodViews {
	return &PodViews{
		PodRepo: pods, observer: observer, services: make(map[ServiceKey]*serviceView), followed: make(map[time.Duration]int),
	}
}

// Set implements PodRepo.
func (v *PodViews) Set(ctx context.Context, key ServiceKey, report Report) (ReportResult, error) {
	result, err := v.PodRepo.Set(ctx, key, report)
	v.changed(key, result.Pod, err)
	if executed(err) {
		v.expectReports(key, result.Pod) //nolint:contextcheck // No call waits for the read.
	}
	return result, err
}

// Cordon implements PodRepo.
func (v *PodViews) Cordon(ctx context.Context, key ServiceKey, pod PodID, cordon Routing, ttl TTL) (Pod, error) {
	stored, err := v.PodRepo.Cordon(ctx, key, pod, cordon, ttl)
	v.changed(key, stored, err)
	return stored, err
}

// Remove implements PodRepo.
func (v *PodViews) Remove(ctx context.Context, key ServiceKey, pod PodID) (*Pod, error) {
	previous, err := v.PodRepo.Remove(ctx, key, pod)
	v.invalidate(key)
	if executed(err) {
		v.observer.PodRemoved(key, pod)
	}
	return previous, err
}

// executed reports whether a mutation was certainly executed, confirmed by replicas or not.
func executed(err error) bool { return err == nil || errors.As(err, new(*UnconfirmedError)) }

// changed applies the result of a mutation, which returned the pod, to the view.
func (v *PodViews) changed(key ServiceKey, pod Pod, err error) {
	if !executed(err) {
		v.invalidate(key) // The mutation may have been executed.
		return
	}
	v.update(key, pod)
	v.observer.PodReported(key, pod)
}

// find returns the pod in the view of the service.
func (v *PodViews) find(ctx context.Context, key ServiceKey, pod PodID) podEntry {
	v.mu.Lock()
	defer v.mu.Unlock()
	view := v.current(ctx, key)
	if !view.loaded() {
		v.mu.Unlock()
		select {
		case <-view.done:
		case <-ctx.Done():
		}
		v.mu.Lock()
	}
	return view.pods[pod]
}

// prefetch starts a read if there is no view, and does not wait for it.
func (v *PodViews) prefetch(ctx context.Context, key ServiceKey) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.current(ctx, key)
}

// current returns the view of the service, and starts a read if there is none or it is too old. The caller must hold mu.
func (v *PodViews) current(ctx context.Context, key ServiceKey) *podView {
	service := v.service(key)
	if view := service.view; view == nil || view.loaded() && time.Since(view.asOf) >= maxViewAge {
		service.view = &podView{done: make(chan struct{})}
		go v.load(ctx, key, service, service.view)
	}
	return service.view
}

// service returns what is known of the service. The caller must hold mu.
func (v *PodViews) service(key ServiceKey) *serviceView {
	service := v.services[key]
	if service == nil {
		service = new(serviceView)
		if len(v.services) >= maxViews {
			clear(v.services)
		}
		v.services[key] = service
	}
	return service
}

func (w *podView) loaded() bool {
	select {
	case <-w.done:
		return true
	default:
		return false
	}
}

// load reads the service into the view. It serves all waiting callers, so the cancellation of the first doesn't end it.
func (v *PodViews) load(ctx context.Context, key ServiceKey, service *serviceView, view *podView) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), maxViewAge)
	defer cancel()
	asOf := time.Now() // The age of the view counts from before the read.
	read, err := v.View(ctx, key)
	if err != nil {
		v.fail(service, view)
		return
	}
	read.Judge(v.storeNow(service, read.Hearing, asOf))
	pods := make(map[PodID]podEntry, len(read.Pods))
	for i := range read.Pods {
		pods[read.Pods[i].Pod] = podEntry{pod: &SharedPod{Pod: read.Pods[i]}}
	}
	v.fill(key, service, view, pods, asOf) //nolint:contextcheck // No call waits for the next read.
	v.observer.PodsRead(key, read.Pods, asOf)
}

// fill sets the result of the read.
func (v *PodViews) fill(key ServiceKey, service *serviceView, view *podView, pods map[PodID]podEntry, asOf time.Time) {
	v.mu.Lock()
	defer v.mu.Unlock()
	defer close(view.done)
	service.doubt.read(pods, asOf)
	service.checked(pods, asOf)
	view.asOf, view.pods = asOf, pods
	v.follow(key, service)
}

// fail ends a read without a result: the next caller starts another one.
func (v *PodViews) fail(service *serviceView, view *podView) {
	v.mu.Lock()
	defer v.mu.Unlock()
	defer close(view.done)
	service.doubt.fail()
}

// update applies a new report to the view.
func (v *PodViews) update(key ServiceKey, pod Pod) {
	v.mu.Lock()
	defer v.mu.Unlock()
	service := v.services[key]
	switch {
	case service == nil || service.view == nil:
	case service.view.pods != nil:
		service.view.pods[pod.Pod] = podEntry{pod: &SharedPod{Pod: pod}}
	default:
		service.view = nil // A read in flight may miss this report.
	}
}

func (v *PodViews) invalidate(key ServiceKey) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if service := v.services[key]; service != nil {
		service.view = nil
	}
}
