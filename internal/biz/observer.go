package biz

import (
	"context"
	"time"
)

// Observer is told what the use-cases do, for metrics and traces. So this package depends on neither.
//
// Its methods are called by many goroutines at once, most of them on the way of a caller's request: they must not block,
// must not ask the store and must not panic. Requests with a malformed field are not told of. No method gets a uid,
// except within ComputeResult.Err, whose text is for the log alone.
type Observer interface {
	// ComputeStarted is called before a compute asks the store. It must return ctx or a child of it, which the rest of
	// the compute uses.
	ComputeStarted(ctx context.Context, service ServiceKey) context.Context
	// ComputeEnded is called once for each ComputeStarted, with the context that it returned, also when the compute
	// panics.
	ComputeEnded(ctx context.Context, result ComputeResult)
	// LinkBatchStarted is called before a batch of links is read, with the number of its distinct uids.
	LinkBatchStarted(uids int)
	// WorkloadBatchStarted is called before a batch of workloads is read, with the number of its distinct services.
	WorkloadBatchStarted(services int)
	// PodReported is called after a report was stored by this process.
	PodReported(service ServiceKey, pod Pod)
	// PodRemoved is called after a pod was removed by this process, or was found to have no report.
	PodRemoved(service ServiceKey, pod PodID)
	// PodsRead is called with all pods of a service after Compute had to read them: at most once a second for each
	// service. They are not older than asOf, but a report or a removal since then may be missing. Pods must not be kept
	// or changed.
	PodsRead(service ServiceKey, pods []Pod, asOf time.Time)
}

// ComputeResult is how a compute has ended. It has neither an outcome nor an error when the compute panicked.
type ComputeResult struct {
	Outcome  Outcome // 0 without a link
	Attempts int     // to link, each with a reservation
	Err      error
}

// NopObserver is an Observer that ignores everything; embedded, it spares an Observer the methods that it has no use for.
type NopObserver struct{}

// ComputeStarted implements Observer.
func (NopObserver) ComputeStarted(ctx context.Context, _ ServiceKey) context.Context { return ctx }

// ComputeEnded implements Observer.
func (NopObserver) ComputeEnded(context.Context, ComputeResult) {}

// LinkBatchStarted implements Observer.
func (NopObserver) LinkBatchStarted(int) {}

// WorkloadBatchStarted implements Observer.
func (NopObserver) WorkloadBatchStarted(int) {}

// PodReported implements Observer.
func (NopObserver) PodReported(ServiceKey, Pod) {}

// PodRemoved implements Observer.
func (NopObserver) PodRemoved(ServiceKey, PodID) {}

// PodsRead implements Observer.
func (NopObserver) PodsRead(ServiceKey, []Pod, time.Time) {}
