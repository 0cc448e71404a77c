package jobs

import (
	"context"
	"errors"
	"time"

	"podlink/internal/biz"
)

const (
	noteGrace = "the pod is cordoned: its links may end by themselves"
	noteNoPod = "no other pod takes new links: the job goes on when one does"

	errNoPod  = reasonError("no other pod of the service takes new links")
	errLifted = reasonError("the cordon of the pod was lifted")
)

// cursorGrace is the cursor of a Relocate that has cordoned the pod, and waits for its links to end by themselves.
const cursorGrace = "grace"

// relocate cordons the pod, gives its links time to end by themselves, and moves those that are left.
func (j *run) relocate(ctx context.Context) error {
	if err := j.beginRelocate(ctx); err != nil {
		return err
	}
	isLifted := func(pod biz.Pod) bool { return pod.Effective() != biz.Shutdown }
	return j.until(ctx, time.Now(), func(ctx context.Context, token string) (int, error) {
		if err := j.unlessLifted(ctx, isLifted); err != nil {
			return 0, err
		}
		return j.walkPod(ctx, j.service, j.job.Spec.Pod, token, func(ctx context.Context, uids []string) (counts, int, error) {
			if err := j.readLifted(ctx, isLifted); err != nil { // A walk may take hours.
				return counts{}, 0, err
			}
			return j.movePage(ctx, uids)
		})
	})
}

// beginRelocate is what comes before the first link. A process that takes the job over later does not repeat it: an operator may have
// lifted a cordon meanwhile.
func (j *run) beginRelocate(ctx context.Context) (err error) {
	_, progress := j.snapshot()
	switch {
	case progress.Cursor == "":
		err = j.deny(ctx)
	case progress.Cursor != cursorGrace:
		return nil
	}
	if err == nil && !j.job.Spec.DryRun {
		err = j.grace(ctx)
	}
	if err == nil && !j.job.Spec.DryRun {
		_, err = j.cordon(ctx, biz.Shutdown)
	}
	if err == nil {
		j.setToken("")
	}
	return err
}

// deny cordons the pod so that it gets no new links, if another pod takes them: also after the cordon, as jobs for the other pods may
// have found this one.
func (j *run) deny(ctx context.Context) error {
	if err := j.othersTakeLinks(ctx); err != nil || j.job.Spec.DryRun {
		return err
	}
	made, err := j.cordon(ctx, biz.DenyNew)
	if err != nil {
		return err
	}
	err = j.othersTakeLinks(ctx)
	if errors.Is(err, errNoPod) && made {
		return errors.Join(err, j.setCordon(ctx, biz.Ready))
	}
	if err == nil {
		j.note(func(p *biz.JobProgress) { p.Cursor = cursorGrace })
	}
	return err
}

// othersTakeLinks fails if no other pod takes new links.
func (j *run) othersTakeLinks(ctx context.Context) error {
	err := j.try(ctx, func() error { return j.Pods.OthersTakeLinks(ctx, j.service, j.job.Spec.Pod) })
	if errors.Is(err, biz.ErrNoAvailablePod) {
		return errNoPod
	}
	return err
}

// grace waits until the links to the pod have ended by themselves, or their time is over. It counts from the start of the job.
func (j *run) grace(ctx context.Context) error {
	passed := time.Duration(j.job.NowMs-j.job.StartMs) * time.Millisecond
	end := time.Now().Add(time.Duration(j.job.Spec.Grace)*time.Second - passed)
	for {
		if err := j.unlessLifted(ctx, func(pod biz.Pod) bool { return pod.Cordon < biz.DenyNew }); err != nil {
			return err
		}
		if !time.Now().Before(end) {
			break
		}
		links, err := j.indexed(ctx)
		if err != nil || links == 0 {
			return err
		}
		j.say(noteGrace)
		if err := pause(ctx, min(walkAgain, time.Until(end))); err != nil {
			return err
		}
	}
	j.say("")
	return nil
}

// indexed returns how many entries the index of the pod has; with an incomplete index at least one.
func (j *run) indexed(ctx context.Context) (links int64, _ error) {
	covered, err := j.completeness(ctx)
	if err != nil || covered == incomplete {
		return 1, err
	}
	err = j.try(ctx, func() error {
		pods, err := j.Index.IndexedPods(ctx, j.service)
		for _, pod := range pods {
			if pod.Pod == j.job.Spec.Pod {
				links = pod.Entries
			}
		}
		return err
	})
	return links, err
}

// cordon makes the pod's cordon at least that strict, and reports whether it was less. A pod without a report needs none: nobody is sent
// to it.
func (j *run) cordon(ctx context.Context, cordon biz.Routing) (made bool, _ error) {
	var pod biz.Pod
	err := j.try(ctx, func() (err error) {
		pod, err = j.Pods.Get(ctx, j.service, j.job.Spec.Pod)
		return err
	})
	switch {
	case errors.Is(err, biz.ErrPodNotFound):
		return false, nil
	case err != nil || pod.Cordon >= cordon:
		return false, err
	}
	return true, j.setCordon(ctx, cordon)
}

// setCordon sets the pod's cordon, if it has a report.
func (j *run) setCordon(ctx context.Context, cordon biz.Routing) error {
	return j.try(ctx, func() error {
		_, err := j.Pods.Cordon(ctx, j.service, j.job.Spec.Pod, cordon, biz.Forever)
		if errors.Is(err, biz.ErrPodNotFound) || errors.As(err, new(*biz.UnconfirmedError)) {
			return nil
		}
		return err
	})
}

// unlessLifted fails if an operator wants the pod back: its links would not move.
func (j *run) unlessLifted(ctx context.Context, lifted func(biz.Pod) bool) error {
	return j.try(ctx, func() error { return j.readLifted(ctx, lifted) })
}

func (j *run) readLifted(ctx context.Context, lifted func(biz.Pod) bool) error {
	if j.job.Spec.DryRun {
		return nil
	}
	pod, err := j.Pods.Get(ctx, j.service, j.job.Spec.Pod)
	if errors.Is(err, biz.ErrPodNotFound) {
		return nil
	}
	if err == nil && lifted(pod) && pod.Liveness != biz.Dead {
		return errLifted
	}
	return err
}

// movePage moves the links that are still the pod's to other pods.
func (j *run) movePage(ctx context.Context, uids []string) (done counts, found int, _ error) {
	if j.job.Spec.DryRun {
		return j.countPage(ctx, j.service, uids, func(link biz.Link) bool { return link.Pod == j.job.Spec.Pod })
	}
	results, err := j.Moves.Relocate(ctx, j.service, j.job.Spec.Pod, uids)
	if err != nil {
		return counts{}, 0, err
	}
	full := false
	for _, result := range results {
		switch {
		case result.Err == nil && result.Outcome == biz.Relinked, errors.As(result.Err, new(*biz.UnconfirmedError)):
			done.done++
			found++
		case result.Err == nil && result.Link.Pod == j.job.Spec.Pod:
			found++ // This process does not know yet that the pod is cordoned.
		case result.Err == nil:
			done.skipped++
		case errors.Is(result.Err, biz.ErrStoreDataCorrupt):
			done.failed++ // Nobody can move it.
		default:
			full = full || errors.Is(result.Err, biz.ErrNoAvailablePod)
			done.failed++
			found++
		}
	}
	j.sayFull(full)
	return done, found, nil
}

// sayFull says that the job waits for a pod, or no longer does.
func (j *run) sayFull(full bool) {
	j.note(func(p *biz.JobProgress) {
		switch {
		case full:
			p.Note = noteNoPod
		case p.Note == noteNoPod:
			p.Note = ""
		}
	})
}

// countPage counts the links that a job would change: it is a dry run.
func (j *run) countPage(
	ctx context.Context, key biz.ServiceKey, uids []string, concerns func(biz.Link) bool,
) (done counts, found int, _ error) {
	results, err := j.Links.BatchGet(ctx, key.Namespace, key.Service, uids)
	if err != nil {
		return counts{}, 0, err
	}
	for _, result := range results {
		switch {
		case result.Err != nil:
			done.failed++
		case result.Link.Exists() && concerns(result.Link):
			done.done++
		default:
			done.skipped++
		}
	}
	return done, 0, nil
}
