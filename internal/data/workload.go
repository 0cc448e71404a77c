package data

import (
	"context"
	"fmt"
	"math"

	"podlink/internal/biz"
	"podlink/internal/rdb"
)

type workloadRepo struct{ store }

// NewWorkloadRepo returns the repo of the workload states in the store.
func NewWorkloadRepo(runner *rdb.Runner, keys Keyspace) biz.WorkloadRepo {
	return workloadRepo{store{runner, keys}}
}

func (r workloadRepo) Set(ctx context.Context, key biz.ServiceKey, state string) (biz.Workload, error) {
	reply, err := r.run(ctx, scriptSetWorkload, r.keys.workload(key.Namespace, key.Service), state)
	if err != nil {
		return biz.Workload{}, err
	}
	fields, err := reply.Fields(1, 1)
	if err != nil {
		return biz.Workload{}, err
	}
	workload, err := workloadOf(key, state, fields[0])
	if err != nil {
		return biz.Workload{}, err
	}
	return workload, unconfirmed(reply, nil)
}

func (r workloadRepo) Remove(ctx context.Context, key biz.ServiceKey) (*biz.Workload, error) {
	reply, err := r.run(ctx, scriptRemoveWorkload, r.keys.workload(key.Namespace, key.Service))
	if err != nil || reply.Status() == "ABSENT" {
		return nil, err
	}
	fields, err := reply.Fields(1, 2)
	if err != nil {
		return nil, err
	}
	workload, err := workloadOf(key, fields[1], fields[0])
	if err != nil {
		return nil, err
	}
	return &workload, unconfirmed(reply, nil)
}

// workloadOf returns the workload with that state and update time.
func workloadOf(key biz.ServiceKey, state, update string) (biz.Workload, error) {
	var p parser
	workload := biz.Workload{Key: key, State: p.text(state), UpdateMs: p.number(update, 0, math.MaxInt64)}
	if p.err != nil {
		return biz.Workload{}, p.err
	}
	return workload, nil
}

func (r workloadRepo) Get(ctx context.Context, key biz.ServiceKey) (biz.Workload, error) {
	found, err := r.BatchGet(ctx, key.Namespace, []string{key.Service})
	if err != nil {
		return biz.Workload{}, err
	}
	if len(found) == 0 {
		return biz.Workload{}, biz.ErrWorkloadNotFound
	}
	return found[0], nil
}

// BatchGet reads all workloads in one pipeline.
func (r workloadRepo) BatchGet(ctx context.Context, namespace string, services []string) ([]biz.Workload, error) {
	reads := make([][]any, len(services))
	for i, service := range services {
		reads[i] = []any{"hmget", r.keys.workload(namespace, service), "state", "update_ms"}
	}
	results, err := r.runner.ReadAll(ctx, scriptSetWorkload.KeyKind, reads)
	if err != nil {
		return nil, domainError(err)
	}
	workloads := make([]biz.Workload, 0, len(services))
	for i, service := range services {
		if err := results[i].Err; err != nil {
			return nil, domainError(err)
		}
		fields, ok := results[i].Value.([]any)
		if !ok || len(fields) != 2 {
			return nil, fmt.Errorf("HMGET answered %T", results[i].Value)
		}
		if fields[0] == nil && fields[1] == nil {
			continue
		}
		state, okState := fields[0].(string)
		update, okUpdate := fields[1].(string)
		if !okState || !okUpdate {
			return nil, fmt.Errorf("%w: a workload lacks its state or its update time", biz.ErrStoreDataCorrupt)
		}
		workload, err := workloadOf(biz.ServiceKey{Namespace: namespace, Service: service}, state, update)
		if err != nil {
			return nil, err
		}
		workloads = append(workloads, workload)
	}
	return workloads, nil
}
