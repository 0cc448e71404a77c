package jobs

import (
	"context"
	"errors"

	"podlink/internal/biz"
)

// remove removes the links of the services that are older than the job, and then their pods and workloads.
func (j *run) remove(ctx context.Context) error {
	if j.job.Spec.DryRun {
		j.note(func(p *biz.JobProgress) { *p = biz.JobProgress{} }) // It counts from the first link on.
	}
	err := j.until(ctx, j.started(), func(ctx context.Context, _ string) (found int, _ error) {
		return j.eachService(ctx, j.removeLinks)
	})
	if err == nil {
		_, err = j.eachService(ctx, j.removePods)
	}
	return err
}

// eachService calls do for each service that the job is about, and returns the sum of what it has found.
func (j *run) eachService(ctx context.Context, do func(context.Context, biz.ServiceKey) (int, error)) (found int, _ error) {
	services := []biz.ServiceKey{j.service}
	if j.service.Service == "" {
		err := j.try(ctx, func() (err error) {
			services, err = j.Index.Services(ctx, j.service.Namespace)
			return err
		})
		if err != nil {
			return 0, err
		}
	}
	for _, key := range services {
		more, err := do(ctx, key)
		found += more
		if err != nil {
			return found, err
		}
	}
	return found, nil
}

// removeLinks removes the links of a service. Those that were made after the start of the job stay.
func (j *run) removeLinks(ctx context.Context, key biz.ServiceKey) (found int, _ error) {
	var pods []biz.IndexedPod
	err := j.try(ctx, func() (err error) {
		pods, err = j.Index.IndexedPods(ctx, key)
		return err
	})
	if err != nil {
		return 0, err
	}
	start := biz.Epoch(j.job.StartMs * 1000)
	older := func(link biz.Link) bool { return link.Epoch < start }
	for _, pod := range pods {
		more, err := j.walkPod(ctx, key, pod.Pod, "", j.unlinking(key, 0, older))
		found += more
		if err != nil {
			return found, err
		}
	}
	return found, nil
}

// removePods removes the pods and the workload of a service. A pod that still reports comes back.
func (j *run) removePods(ctx context.Context, key biz.ServiceKey) (int, error) {
	var pods []biz.Pod
	err := j.try(ctx, func() (err error) {
		pods, err = j.Pods.List(ctx, key)
		return err
	})
	if err != nil {
		return 0, err
	}
	for _, pod := range pods {
		if err := j.removing(ctx, func() (bool, error) {
			previous, err := j.Pods.Remove(ctx, key, pod.Pod)
			return previous != nil, err
		}); err != nil {
			return 0, err
		}
	}
	return 0, j.removing(ctx, func() (bool, error) {
		previous, err := j.Workloads.Remove(ctx, key)
		return previous != nil, err
	})
}

// removing counts what do removes. A dry run only counts.
func (j *run) removing(ctx context.Context, do func() (bool, error)) error {
	if j.job.Spec.DryRun {
		return nil
	}
	if err := j.throttle.wait(ctx, 1); err != nil {
		return err
	}
	return j.try(ctx, func() error {
		removed, err := do()
		if errors.As(err, new(*biz.UnconfirmedError)) {
			err = nil
		}
		if removed && err == nil {
			j.count(counts{done: 1})
		}
		return err
	})
}
