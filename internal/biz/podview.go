package biz

import (
	"context"
	"errors"
	"sync"
	"time"
)

const (
	// maxViewAge is how old a view of a service's pods may get.
	maxViewAge = time.Second
	// maxViews is how many services have a view at once.
	maxViews = 10_000
)

// PodViews is a PodRepo that remembers, for at most a second, which pods of a service a standing link may stay on. So
// the many calls that find their link standing don't ask the store for its pod each time. What goes through this process
// is seen at once; what other processes store, and a pod that falls silent, up to a second later.
type PodViews struct {
	PodRepo
	observer Observer

	mu    sync.Mutex
	views map[ServiceKey]*podView
}

// podView is one service as it was read; those who ask meanwhile wait for the same reading. Guarded by PodViews.mu, but
// for done.
type podView struct {
	done chan struct{}  // closed when the rest is set
	asOf time.Time      // zero: it could not be read
	pods map[PodID]bool // whether a link may stay there
}

// NewPodViews returns the repo with views of its pods.
func NewPodViews(pods PodRepo, observer Observer) *PodViews {
	return &PodViews{PodRepo: pods, observer: observer, views: make(map[ServiceKey]*podView)}
}

// Set implements PodRepo.
func (v *PodViews) Set(ctx context.Context, key ServiceKey, report Report) (Pod, *Pod, error) {
	pod, previous, err := v.PodRepo.Set(ctx, key, report)
	if err != nil {
		v.invalidate(key) // It may have been stored.
	} else {
		v.update(key, pod)
	}
	if executed(err) {
		v.observer.PodReported(key, pod)
	}
	return pod, previous, err
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

// executed says that a mutation certainly was, be it confirmed by replicas or not.
func executed(err error) bool { return err == nil || errors.As(err, new(*UnconfirmedError)) }

// mayKeep tells whether a link may stay on the pod. False means that the store has to be asked: the pod is not usable, not
// known, or the service could not be read.
func (v *PodViews) mayKeep(ctx context.Context, key ServiceKey, pod PodID) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	view := v.view(ctx, key)
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

// view returns the view of the service; one that is too old is read anew. The caller holds mu.
func (v *PodViews) view(ctx context.Context, key ServiceKey) *podView {
	view := v.views[key]
	if view == nil || view.loaded() && time.Since(view.asOf) >= maxViewAge {
		view = &podView{done: make(chan struct{})}
		if len(v.views) >= maxViews {
			clear(v.views)
		}
		v.views[key] = view
		go v.load(ctx, key, view)
	}
	return view
}

func (w *podView) loaded() bool {
	select {
	case <-w.done:
		return true
	default:
		return false
	}
}

// load reads the service into the view. It works for all who wait, so it does not end with the caller who came first.
func (v *PodViews) load(ctx context.Context, key ServiceKey, view *podView) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), maxViewAge)
	defer cancel()
	asOf := time.Now() // Its age counts from before the reading.
	pods, err := v.List(ctx, key)
	v.fill(view, pods, asOf, err)
	if err == nil {
		v.observer.PodsRead(key, pods, asOf)
	}
}

// fill ends the reading of the view.
func (v *PodViews) fill(view *podView, pods []Pod, asOf time.Time, err error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	defer close(view.done)
	if err != nil {
		return // The next caller reads anew.
	}
	view.asOf, view.pods = asOf, make(map[PodID]bool, len(pods))
	for _, pod := range pods {
		view.pods[pod.Pod] = pod.usable()
	}
}

// note puts a new report into the view.
func (v *PodViews) update(key ServiceKey, pod Pod) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if view := v.views[key]; view != nil && view.pods != nil {
		view.pods[pod.Pod] = pod.usable()
		return
	}
	delete(v.views, key) // What is being read may be from before this report.
}

func (v *PodViews) invalidate(key ServiceKey) {
	v.mu.Lock()
	defer v.mu.Unlock()
	delete(v.views, key)
}

// usable says that a link may stay on the pod.
func (p Pod) usable() bool { return p.Live && p.Routing != Shutdown }
