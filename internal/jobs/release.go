package jobs

import (
	"context"
	"errors"
	"time"

	"podlink/internal/biz"
)

// release makes the persistent links temporary that an earlier process of the pod has claimed and not released.
func (j *run) release(ctx context.Context) error {
	spec := j.job.Spec
	left := func(link biz.Link) bool {
		return link.Pod == spec.Pod && link.Persistent() && link.Claim > 0 && link.Claim < spec.Below
	}
	return j.until(ctx, j.started(), func(ctx context.Context, token string) (int, error) {
		return j.walkPod(ctx, j.service, spec.Pod, token, j.unlinking(j.service, spec.Keep, left))
	})
}

// started returns when the job was started, by the clock of this process: it may be on another machine than the store.
func (j *run) started() time.Time {
	return time.Now().Add(-time.Duration(j.job.NowMs-j.job.StartMs) * time.Millisecond)
}

// unlinking returns what removes the links of a page that are concerned, or with keep >= 1 makes them expire: on the condition that
// each is still the one that was read.
func (j *run) unlinking(key biz.ServiceKey, keep int32, concerns func(biz.Link) bool) page {
	return func(ctx context.Context, uids []string) (done counts, found int, _ error) {
		if j.job.Spec.DryRun {
			return j.countPage(ctx, key, uids, concerns)
		}
		results, err := j.Links.BatchGet(ctx, key.Namespace, key.Service, uids)
		if err != nil {
			return counts{}, 0, err
		}
		var items []biz.RemoveItem
		for _, result := range results {
			switch link := result.Link; {
			case errors.Is(result.Err, biz.ErrStoreDataCorrupt):
				done.failed++ // It stays as it is.
			case result.Err != nil:
				done.failed++
				found++
			case link.Exists() && concerns(link):
				items = append(items, biz.RemoveItem{UID: link.Key.UID, Keep: keep, Terms: biz.RemoveTerms{Expected: &link.Epoch}})
			default:
				done.skipped++
			}
		}
		if len(items) == 0 {
			return done, found, nil
		}
		for _, result := range j.Links.BatchRemove(ctx, key, items) {
			switch {
			case result.Err == nil && result.Applied, errors.As(result.Err, new(*biz.UnconfirmedError)):
				done.done++
			case result.Err == nil, errors.As(result.Err, new(*biz.EpochMismatchError)):
				done.skipped++ // The next walk reads it again.
			default:
				done.failed++
			}
		}
		return done, found + len(items), nil
	}
}
