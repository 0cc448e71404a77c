package jobs

import (
	"context"
	"errors"
	"strings"
	"time"

	"podlink/internal/biz"
)

const (
	// settle is how long ago a link must have been made to be in an index that is complete.
	settle = 10 * time.Second
	// walkAgain is the time between two walks.
	walkAgain = time.Second

	noteCensus = "the index is incomplete: the job ends after a census has gone over all links"
	noteSettle = "all links that were found are done: a last walk follows, ten seconds after the first"
)

// until walks over links until there is nothing left: until a walk from the first link on, begun once all links that were made before
// since are in the index, has found none, and the index was complete all the time. walk begins at the cursor's token, and returns how
// many links it has found that were to be changed. A dry run walks once.
func (j *run) until(ctx context.Context, since time.Time, walk func(ctx context.Context, token string) (found int, err error)) error {
	for {
		before, err := j.completeness(ctx)
		if err != nil {
			return err
		}
		began, token := time.Now(), j.token()
		found, err := walk(ctx, token)
		if err != nil || j.job.Spec.DryRun {
			return err
		}
		after, err := j.completeness(ctx)
		if err != nil {
			return err
		}
		j.setToken("")
		switch {
		case found > 0 || token != "":
		case before == incomplete || before != after:
			j.say(noteCensus)
		case began.Before(since.Add(settle)):
			j.say(noteSettle)
		default:
			return nil
		}
		if err := pause(ctx, walkAgain); err != nil {
			return err
		}
	}
}

// cursorLinks comes before the token in the cursor of a job that walks over links.
const cursorLinks = "links "

// token returns the token at which the walk goes on; "": it begins.
func (j *run) token() string {
	_, progress := j.snapshot()
	return strings.TrimPrefix(progress.Cursor, cursorLinks)
}

func (j *run) setToken(token string) {
	j.note(func(p *biz.JobProgress) { p.Cursor = cursorLinks + token })
}

// incomplete is the completeness of an index that may lack links.
const incomplete = -1

// completeness returns the number of gaps that a census has covered if the index is complete. If it is the same later, the index was
// complete all the time.
func (j *run) completeness(ctx context.Context) (covered int64, err error) {
	err = j.try(ctx, func() error {
		var gaps int64
		gaps, covered, err = j.Index.Completeness(ctx)
		if covered < gaps || !j.Complete() {
			covered = incomplete
		}
		return err
	})
	return covered, err
}

// page does something to links by their uids, each of which is there once.
type page func(ctx context.Context, uids []string) (counts, int, error)

// walkPod calls do for each page of the index of a pod, and returns how many links it has found in all.
func (j *run) walkPod(
	ctx context.Context, key biz.ServiceKey, pod biz.PodID, token string, do page,
) (found int, _ error) {
	for {
		entries, next, err := j.entries(ctx, key, pod, token)
		if err != nil {
			return found, err
		}
		more, err := j.step(ctx, uidsOf(entries), do)
		found += more
		if err != nil || next == "" {
			return found, err
		}
		token = next
		j.setToken(token)
	}
}

// step does a page of links when its time has come.
func (j *run) step(ctx context.Context, uids []string, do page) (found int, _ error) {
	if len(uids) == 0 {
		return 0, ctx.Err()
	}
	if err := j.throttle.wait(ctx, len(uids)); err != nil {
		return 0, err
	}
	var done counts
	err := j.try(ctx, func() (err error) {
		// A process that was stopped between the read and the change of the page must not go on with what it has read.
		lease, _ := j.snapshot()
		held, cancel := context.WithDeadline(ctx, lease.until)
		defer cancel()
		began := time.Now()
		done, found, err = do(held, uids)
		j.throttle.measure(len(uids), time.Since(began))
		return err
	})
	if err != nil {
		return 0, err
	}
	j.count(done)
	return found, nil
}

// entries returns a page of the index of a pod. A token that is no longer valid is of another version of podlink: the walk begins from
// the first entry then.
func (j *run) entries(
	ctx context.Context, key biz.ServiceKey, pod biz.PodID, token string,
) (entries []biz.IndexEntry, next string, err error) {
	err = j.try(ctx, func() error {
		entries, next, err = j.Index.Entries(ctx, key, pod, token, j.throttle.page())
		return err
	})
	if errors.As(err, new(*biz.InvalidArgumentError)) && token != "" {
		return j.entries(ctx, key, pod, "")
	}
	return entries, next, err
}

func uidsOf(entries []biz.IndexEntry) []string {
	seen, uids := make(map[string]bool, len(entries)), make([]string, 0, len(entries))
	for _, entry := range entries {
		if !seen[entry.UID] {
			seen[entry.UID] = true
			uids = append(uids, entry.UID)
		}
	}
	return uids
}
