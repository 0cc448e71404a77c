package model

import (
	"context"
	"time"

	"podlink/internal/biz"
)

// workloadRepo implements biz.WorkloadRepo.
type workloadRepo struct{ *Podlink }

func timeOf(us int64) time.Time { return time.UnixMicro(us) }

// Set implements biz.WorkloadRepo.
func (r workloadRepo) Set(ctx context.Context, key biz.ServiceKey, state string) (biz.Workload, error) {
	var workload biz.Workload
	err := r.call(ctx, true, func() {
		workload = biz.Workload{Key: key, State: state, UpdateMs: r.store.micros() / 1000}
		r.put(key, &workload)
	})
	if err != nil {
		return biz.Workload{}, err
	}
	return workload, nil
}

// put stores or removes a workload. The caller must hold mu.
func (r workloadRepo) put(key biz.ServiceKey, workload *biz.Workload) {
	s := r.store
	before, ok := s.workloads[key]
	s.remember(func() {
		if ok {
			s.workloads[key] = before
		} else {
			delete(s.workloads, key)
		}
	})
	if workload != nil {
		s.workloads[key] = *workload
	} else {
		delete(s.workloads, key)
	}
}

// Get implements biz.WorkloadRepo.
func (r workloadRepo) Get(ctx context.Context, key biz.ServiceKey) (biz.Workload, error) {
	all, err := r.BatchGet(ctx, key.Namespace, []string{key.Service})
	if err == nil && len(all) == 0 {
		err = biz.ErrWorkloadNotFound
	}
	if err != nil {
		return biz.Workload{}, err
	}
	return all[0], nil
}

// BatchGet implements biz.WorkloadRepo.
func (r workloadRepo) BatchGet(ctx context.Context, namespace string, services []string) ([]biz.Workload, error) {
	workloads := make([]biz.Workload, 0, len(services))
	err := r.call(ctx, false, func() {
		for _, service := range services {
			if workload, ok := r.store.workloads[biz.ServiceKey{Namespace: namespace, Service: service}]; ok {
				workloads = append(workloads, workload)
			}
		}
	})
	if err != nil {
		return nil, err
	}
	return workloads, nil
}

// Remove implements biz.WorkloadRepo.
func (r workloadRepo) Remove(ctx context.Context, key biz.ServiceKey) (*biz.Workload, error) {
	var previous *biz.Workload
	err := r.call(ctx, true, func() {
		if workload, ok := r.store.workloads[key]; ok {
			r.store.micros()
			r.put(key, nil)
			previous = &workload
		}
	})
	if err != nil {
		return nil, err
	}
	return previous, nil
}
