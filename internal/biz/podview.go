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

// PodViews is a PodRepo with a cache, per service and for at most a second, of the pods that are usable for an existing
// link. So a compute of an existing link need not read the pods each time. Changes by this process are visible at once;
// changes by other processes, and a pod that stops reporting, up to a second later.
type PodViews struct {
	PodRepo
	observer Observer

	mu    sync.Mutex
	views map[ServiceKey]*podView
}

// podView is the cached view of one service. Concurrent callers share the read that fills it. Guarded by PodViews.mu,
// except done.
type podView struct {
	done chan struct{}  // closed when the read has ended
	asOf time.Time      // zero: the read failed
	pods map[PodID]bool // whether the pod is usable for an existing link
}

// NewPodViews returns the repo with a cache of its pods.
func NewPodViews(pods PodRepo, observer Observer) *PodViews {
	return &PodViews{PodRepo: pods, observer: observer, views: make(map[ServiceKey]*podView)}
}

// Set implements PodRepo.
func (v *PodViews) Set(ctx context.Context, key ServiceKey, report Report) (ReportResult, error) {
	result, err := v.PodRepo.Set(ctx, key, report)
	if err != nil {
		v.invalidate(key) // The report may have been stored.
	} else {
		v.update(key, result.Pod)
	}
	if executed(err) {
		v.observer.PodReported(key, result.Pod)
	}
	return result, err
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

// mayKeep reports whether the pod is usable for an existing link. False means that the store has to decide: the pod is not
// usable, it is unknown, or the read of the service failed.
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

// view returns the view of the service, and starts a read if there is none or it is too old. The caller must hold mu.
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

// load reads the service into the view. It serves all waiting callers, so the cancellation of the first doesn't end it.
func (v *PodViews) load(ctx context.Context, key ServiceKey, view *podView) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), maxViewAge)
	defer cancel()
	asOf := time.Now() // The age of the view counts from before the read.
	pods, err := v.List(ctx, key)
	v.fill(view, pods, asOf, err)
	if err == nil {
		v.observer.PodsRead(key, pods, asOf)
	}
}

// fill sets the result of the read.
func (v *PodViews) fill(view *podView, pods []Pod, asOf time.Time, err error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	defer close(view.done)
	if err != nil {
		return // The next caller starts another read.
	}
	view.asOf, view.pods = asOf, make(map[PodID]bool, len(pods))
	for _, pod := range pods {
		view.pods[pod.Pod] = pod.usable()
	}
}

// update applies a new report to the view.
func (v *PodViews) update(key ServiceKey, pod Pod) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if view := v.views[key]; view != nil && view.pods != nil {
		view.pods[pod.Pod] = pod.usable()
		return
	}
	delete(v.views, key) // A read in flight may miss this report.
}

func (v *PodViews) invalidate(key ServiceKey) {
	v.mu.Lock()
	defer v.mu.Unlock()
	delete(v.views, key)
}

// usable reports whether the pod is usable for an existing link.
func (p Pod) usable() bool { return p.Liveness != Dead && p.Effective() != Shutdown }
