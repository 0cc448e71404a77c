package biz

import "context"

// Workload is the state of a whole service.
type Workload struct {
	Key      ServiceKey
	State    string
	UpdateMs int64 // time of the update by the store's clock
}

// WorkloadRepo stores workload states. Mutations and reads must satisfy the rules of LinkRepo.
type WorkloadRepo interface {
	// Set stores the state.
	Set(ctx context.Context, key ServiceKey, state string) (Workload, error)
	// Get must return ErrWorkloadNotFound for a workload that was never set.
	Get(ctx context.Context, key ServiceKey) (Workload, error)
	// BatchGet must return the workloads that were set, in the order of services, and omit the others.
	BatchGet(ctx context.Context, namespace string, services []string) ([]Workload, error)
	// Remove deletes the workload's state. previous must be nil if there was none.
	Remove(ctx context.Context, key ServiceKey) (previous *Workload, err error)
}

// WorkloadUsecase implements the operations on workload states: it validates their arguments and calls the repo.
type WorkloadUsecase struct {
	workloads WorkloadRepo
	observer  Observer
	maxBatch  int
}

// NewWorkloadUsecase returns the use-case on the repo.
func NewWorkloadUsecase(workloads WorkloadRepo, limits Limits, observer Observer) *WorkloadUsecase {
	return &WorkloadUsecase{workloads: workloads, observer: observer, maxBatch: limits.MaxBatch}
}

// Set stores the state.
func (u *WorkloadUsecase) Set(ctx context.Context, key ServiceKey, state string) (Workload, error) {
	if err := firstError(key.validate(), validateState(state)); err != nil {
		return Workload{}, err
	}
	return u.workloads.Set(ctx, key, state)
}

// Get returns the workload, or ErrWorkloadNotFound.
func (u *WorkloadUsecase) Get(ctx context.Context, key ServiceKey) (Workload, error) {
	if err := key.validate(); err != nil {
		return Workload{}, err
	}
	return u.workloads.Get(ctx, key)
}

// BatchGet returns the workloads that were set, in the order of services.
func (u *WorkloadUsecase) BatchGet(ctx context.Context, namespace string, services []string) ([]Workload, error) {
	err := firstError(
		validateName("namespace", namespace),
		validateBatch("services", services, u.maxBatch, validateName),
	)
	if err != nil {
		return nil, err
	}
	services = distinct(services)
	u.observer.BatchStarted(WorkloadBatch, len(services))
	return u.workloads.BatchGet(ctx, namespace, services)
}

// Remove deletes the workload's state and returns it, nil if there was none.
func (u *WorkloadUsecase) Remove(ctx context.Context, key ServiceKey) (*Workload, error) {
	if err := key.validate(); err != nil {
		return nil, err
	}
	return u.workloads.Remove(ctx, key)
}
