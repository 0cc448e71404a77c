package biz

import (
	"context"
	"time"
)

// Observer receives the events of the use-cases, for metrics and traces, so that this package depends on neither.
//
// Its methods are called concurrently, and mostly on the request path: they must not block, call the store or panic. They
// are not called for requests with a malformed field. No method gets a uid, except in the text of ComputeResult.Err, which
// is for the log only.
type Observer interface {
	// ComputeStarted is called before a compute calls the store. It must return ctx or a child of it; the compute uses
	// the returned context.
	ComputeStarted(ctx context.Context, service ServiceKey) context.Context
	// ComputeEnded is called once for each ComputeStarted, with the context that it returned, even if the compute
	// panics.
	ComputeEnded(ctx context.Context, result ComputeResult)
	// ComputesStarted is ComputeStarted for a batch of computes.
	ComputesStarted(ctx context.Context, service ServiceKey) context.Context
	// ComputesEnded is ComputeEnded for a batch of computes, with the result of each.
	ComputesEnded(ctx context.Context, results []ComputeResult)
	// BatchStarted is called before a batch calls the store, with the number of its distinct entries.
	BatchStarted(kind Batch, entries int)
	// PodReported is called with the stored pod after a report to this process, even one that changed nothing, and after a
	// cordon.
	PodReported(service ServiceKey, pod Pod)
	// PodRemoved is called after this process has removed a pod, or found that the pod has no report.
	PodRemoved(service ServiceKey, pod PodID)
	// PodsRead is called with the pods of a service, without those that are dead for certain, after they were read for
	// Compute: at most once a second per service. They are not older than asOf, but later reports and removals may be missing.
	// The slice must not be modified.
	PodsRead(service ServiceKey, pods []Pod, asOf time.Time)
}

// ComputeResult is the result of a compute. It has neither an outcome nor an error if the compute panicked.
type ComputeResult struct {
	Outcome  Outcome // 0 if no link was returned
	Attempts int     // to reserve a pod and link to it; 0 if the link that was read could be returned
	Err      error
}

// NopObserver is an Observer that ignores all events. Embed it to implement only some of the methods.
type NopObserver struct{}

// ComputeStarted implements Observer.
func (NopObserver) ComputeStarted(ctx context.Context, _ ServiceKey) context.Context { return ctx }

// ComputeEnded implements Observer.
func (NopObserver) ComputeEnded(context.Context, ComputeResult) {}

// ComputesStarted implements Observer.
func (NopObserver) ComputesStarted(ctx context.Context, _ ServiceKey) context.Context { return ctx }

// ComputesEnded implements Observer.
func (NopObserver) ComputesEnded(context.Context, []ComputeResult) {}

// BatchStarted implements Observer.
func (NopObserver) BatchStarted(Batch, int) {}

// PodReported implements Observer.
func (NopObserver) PodReported(ServiceKey, Pod) {}

// PodRemoved implements Observer.
func (NopObserver) PodRemoved(ServiceKey, PodID) {}

// PodsRead implements Observer.
func (NopObserver) PodsRead(ServiceKey, []Pod, time.Time) {}
