package biz

import (
	"context"
	"sync"
	"time"
)

const (
	// viewAge is how old a view of a service's pods may get.
	viewAge = time.Second
	// maxViews is how many services have a view at once.
	maxViews = 10_000
)

// PodViews is a PodRepo that remembers, for at most a second, which pods of a service a standing link may stay on. So
// the many calls that find their link standing don't ask the store for its pod each time. What goes through this process
// is seen at once; what other processes store, and a pod that falls silent, up to a second later.
type PodViews struct {
	PodRepo

	mu    sync.Mutex
	views map[ServiceKey]*podView
}

// podView is one service as it was read; those who ask meanwhile wait for the same reading. Guarded by PodViews.mu, but
// for done.
type podView struct {
	done   chan struct{} // closed when the rest is set
	asOf   time.Time     // zero: it could not be read
	pods   map[PodID]podStatus
	counts [statuses]int // of pods
}

// NewPodViews returns the repo with views of its pods.
func NewPodViews(pods PodRepo) *PodViews {
	return &PodViews{PodRepo: pods, views: make(map[ServiceKey]*podView)}
}

// Set implements PodRepo.
func (v *PodViews) Set(ctx context.Context, key ServiceKey, report Report) (Pod, *Pod, error) {
	pod, previous, err := v.PodRepo.Set(ctx, key, report)
	if err != nil {
		v.forget(key) // It may have been stored.
	} else {
		v.note(key, pod)
	}
	return pod, previous, err
}

// Remove implements PodRepo.
func (v *PodViews) Remove(ctx context.Context, key ServiceKey, pod PodID) (*Pod, error) {
	defer v.forget(key)
	return v.PodRepo.Remove(ctx, key, pod)
}

// mayKeep tells whether a link may stay on the pod. False means that the store has to be asked: the pod is not usable, not
// known, or the service could not be read.
func (v *PodViews) mayKeep(ctx context.Context, key ServiceKey, pod PodID) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	view := v.view(ctx, key)
	if !view.read() {
		v.mu.Unlock()
		select {
		case <-view.done:
		case <-ctx.Done():
		}
		v.mu.Lock()
	}
	return view.pods[pod].usable()
}

// view returns the view of the service; one that is too old is read anew. The caller holds mu.
func (v *PodViews) view(ctx context.Context, key ServiceKey) *podView {
	view := v.views[key]
	if view == nil || view.read() && time.Since(view.asOf) >= viewAge {
		view = &podView{done: make(chan struct{})}
		if len(v.views) >= maxViews {
			clear(v.views)
		}
		v.views[key] = view
		go v.load(ctx, key, view)
	}
	return view
}

func (w *podView) read() bool {
	select {
	case <-w.done:
		return true
	default:
		return false
	}
}

// load reads the service into the view. It works for all who wait, so it does not end with the caller who came first.
func (v *PodViews) load(ctx context.Context, key ServiceKey, view *podView) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), viewAge)
	defer cancel()
	asOf := time.Now() // Its age counts from before the reading.
	pods, err := v.List(ctx, key)
	v.mu.Lock()
	defer v.mu.Unlock()
	defer close(view.done)
	if err != nil {
		return // The next caller reads anew.
	}
	view.asOf, view.pods = asOf, make(map[PodID]podStatus, len(pods))
	for _, pod := range pods {
		view.put(pod)
	}
}

// note puts a new report into the view.
func (v *PodViews) note(key ServiceKey, pod Pod) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if view := v.views[key]; view != nil && view.pods != nil {
		view.put(pod)
		return
	}
	delete(v.views, key) // What is being read may be from before this report.
}

func (v *PodViews) forget(key ServiceKey) {
	v.mu.Lock()
	defer v.mu.Unlock()
	delete(v.views, key)
}

// put sets what is known of the pod.
func (w *podView) put(pod Pod) {
	if before, known := w.pods[pod.Pod]; known {
		w.counts[before]--
	}
	w.pods[pod.Pod] = pod.status()
	w.counts[pod.status()]++
}

// podStatus is what a pod takes.
type podStatus uint8

const (
	podUnknown  podStatus = iota
	podLive               // takes new links
	podDraining           // keeps its links
	podShutdown           // takes nothing
	podDead               // is silent for longer than its ttl
	statuses
)

// podStatusNames are the statuses as the metrics call them.
var podStatusNames = [statuses]string{podLive: "live", podDraining: "draining", podShutdown: "shutdown", podDead: "dead"}

func (p Pod) status() podStatus {
	switch {
	case !p.Live:
		return podDead
	case p.Routing == Shutdown:
		return podShutdown
	case p.Routing == DenyNew:
		return podDraining
	default:
		return podLive
	}
}

// usable tells whether a standing link may stay on the pod.
func (s podStatus) usable() bool { return s == podLive || s == podDraining }
