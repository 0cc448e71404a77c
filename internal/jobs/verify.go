package jobs

import (
	"context"
	"errors"
	"time"

	"podlink/internal/biz"
)

// cursorEntries is the cursor of a Verify that has been over all links.
const cursorEntries = "entries"

// noteMoved is what a Verify says when it counts again from the first key on.
const noteMoved = "the store has changed: the job began again"

// verify goes over all keys of links, and then over all entries of the index.
func (j *run) verify(ctx context.Context) error {
	if _, progress := j.snapshot(); progress.Cursor != cursorEntries {
		if err := j.verifyKeys(ctx); err != nil {
			return err
		}
	}
	j.note(func(p *biz.JobProgress) { p.Cursor, p.Faults.EntriesWithoutLink = cursorEntries, 0 })
	_, err := j.eachService(ctx, j.verifyIndex)
	return err
}

// verifyKeys goes over all keys. If the store changes so that keys may be missed, it begins again.
func (j *run) verifyKeys(ctx context.Context) error {
	pods := reported{run: j}
	for token := j.token(); ; {
		if err := j.throttle.wait(ctx, j.throttle.page()); err != nil {
			return err
		}
		var keys []biz.StoredLinks
		var next string
		err := j.try(ctx, func() (err error) {
			began := time.Now()
			keys, next, err = j.Keys.ScanKeys(ctx, token, j.throttle.page())
			j.throttle.measure(len(keys), time.Since(began))
			return err
		})
		switch {
		case errors.Is(err, biz.ErrScanMoved), errors.As(err, new(*biz.InvalidArgumentError)) && token != "":
			token = ""
			j.note(func(p *biz.JobProgress) { *p = biz.JobProgress{Note: noteMoved} })
			if err := pause(ctx, walkAgain); err != nil {
				return err
			}
			continue
		case err != nil:
			return err
		}
		if err := j.verifyPart(ctx, keys, &pods); err != nil || next == "" {
			return err
		}
		token = next
		j.setToken(token)
	}
}

// verifyPart counts the faults of some keys.
func (j *run) verifyPart(ctx context.Context, keys []biz.StoredLinks, pods *reported) error {
	var faults biz.JobFaults
	byPod := make(map[indexOf][]biz.Link)
	for _, key := range keys {
		for _, service := range key.Foreign {
			if j.concerns(key.Namespace, service) || service == "" && key.Namespace == j.service.Namespace {
				faults.ForeignFields++
			}
		}
		mine := false
		for _, link := range key.Links {
			if j.concerns(key.Namespace, link.Key.Service) {
				at := indexOf{biz.ServiceKey{Namespace: key.Namespace, Service: link.Key.Service}, link.Pod}
				byPod[at] = append(byPod[at], link)
				mine = true
			}
		}
		if key.Unending && (mine || key.Namespace == j.service.Namespace && j.service.Service == "") {
			faults.KeysWithoutExpiry++
		}
	}
	seen := 0
	for at, links := range byPod {
		has, err := pods.has(ctx, at)
		if err != nil {
			return err
		}
		if !has {
			faults.LinksWithoutPod += int64(len(links))
		}
		seen += len(links)
	}
	missing, err := j.verifyEntries(ctx, byPod)
	if err != nil {
		return err
	}
	faults.LinksWithoutEntry = int64(missing)
	var done counts
	if j.job.Spec.Repair {
		done.done = missing
	}
	done.skipped = seen - done.done
	j.note(func(p *biz.JobProgress) {
		p.Faults.LinksWithoutEntry += faults.LinksWithoutEntry
		p.Faults.LinksWithoutPod += faults.LinksWithoutPod
		p.Faults.ForeignFields += faults.ForeignFields
		p.Faults.KeysWithoutExpiry += faults.KeysWithoutExpiry
	})
	j.count(done)
	return nil
}

// indexOf names the index of a pod.
type indexOf struct {
	service biz.ServiceKey
	pod     biz.PodID
}

func (j *run) concerns(namespace, service string) bool {
	return namespace == j.service.Namespace && service != "" && (j.service.Service == "" || j.service.Service == service)
}

// verifyEntries returns how many of the links the index lacks, and repairs it if the job is to do that. Links that were made a moment ago
// may not be in the index yet: they are looked up once more, all after one pause, as an index may lack very many.
func (j *run) verifyEntries(ctx context.Context, byPod map[indexOf][]biz.Link) (missing int, err error) {
	doubtful := make(map[indexOf][]biz.Link)
	for at, links := range byPod {
		lacking, err := j.lacking(ctx, at, links)
		if err != nil {
			return 0, err
		}
		if len(lacking) > 0 {
			doubtful[at] = lacking
		}
	}
	if len(doubtful) == 0 {
		return 0, nil
	}
	if err := pause(ctx, walkAgain); err != nil {
		return 0, err
	}
	for at, links := range doubtful {
		standing, err := j.standing(ctx, at, links)
		if err == nil {
			links, err = j.lacking(ctx, at, standing)
		}
		if err == nil && len(links) > 0 && j.job.Spec.Repair {
			err = j.addEntries(ctx, at, links)
		}
		if err != nil {
			return 0, err
		}
		missing += len(links)
	}
	return missing, nil
}

// addEntries adds the links to the index of their pod.
func (j *run) addEntries(ctx context.Context, at indexOf, links []biz.Link) error {
	updates := make([]biz.IndexUpdate, len(links))
	for i, link := range links {
		entry := biz.IndexEntry{UID: link.Key.UID, Epoch: link.Epoch}
		if !link.Persistent() {
			entry.Expires = time.Now().Add(time.Duration(link.TTL) * time.Second)
		}
		updates[i] = biz.IndexUpdate{Op: biz.AddEntry, Entry: entry}
	}
	return j.repair(ctx, at, updates)
}

// lacking returns the links that are not in the index.
func (j *run) lacking(ctx context.Context, at indexOf, links []biz.Link) (missing []biz.Link, _ error) {
	if len(links) == 0 {
		return nil, nil
	}
	uids := make([]string, len(links))
	for i, link := range links {
		uids[i] = link.Key.UID
	}
	err := j.try(ctx, func() error {
		indexed, err := j.Keys.Indexed(ctx, at.service, at.pod, uids)
		missing = nil
		for i, has := range indexed {
			if !has {
				missing = append(missing, links[i])
			}
		}
		return err
	})
	return missing, err
}

// standing returns those of the links that are still to the pod.
func (j *run) standing(ctx context.Context, at indexOf, links []biz.Link) (still []biz.Link, _ error) {
	uids := make([]string, len(links))
	for i, link := range links {
		uids[i] = link.Key.UID
	}
	err := j.try(ctx, func() error {
		results, err := j.Links.BatchGet(ctx, at.service.Namespace, at.service.Service, uids)
		still = nil
		for _, result := range results {
			if result.Err == nil && result.Link.Pod == at.pod {
				still = append(still, result.Link)
			}
		}
		return err
	})
	return still, err
}

// repair updates the index of a pod.
func (j *run) repair(ctx context.Context, at indexOf, updates []biz.IndexUpdate) error {
	return j.try(ctx, func() error {
		return j.Feed.Flush(ctx, []biz.FlushPart{{Service: at.service, Pod: at.pod, Updates: updates}})[0]
	})
}

// verifyIndex counts the entries of the indexes of a service that have no link.
func (j *run) verifyIndex(ctx context.Context, key biz.ServiceKey) (int, error) {
	var pods []biz.IndexedPod
	err := j.try(ctx, func() (err error) {
		pods, err = j.Index.IndexedPods(ctx, key)
		return err
	})
	if err != nil {
		return 0, err
	}
	for _, pod := range pods {
		at := indexOf{key, pod.Pod}
		for token := ""; ; {
			entries, next, err := j.entries(ctx, key, pod.Pod, token)
			if err == nil {
				err = j.verifyPage(ctx, at, entries)
			}
			if err != nil {
				return 0, err
			}
			if token = next; token == "" {
				break
			}
		}
	}
	return 0, nil
}

// verifyPage counts those of the entries that have no link, and removes them if the job is to do that.
func (j *run) verifyPage(ctx context.Context, at indexOf, entries []biz.IndexEntry) error {
	var stale []biz.IndexUpdate
	_, err := j.step(ctx, uidsOf(entries), func(ctx context.Context, uids []string) (done counts, _ int, _ error) {
		results, err := j.Links.BatchGet(ctx, at.service.Namespace, at.service.Service, uids)
		if err != nil {
			return counts{}, 0, err
		}
		elsewhere := make(map[string]bool)
		for i, result := range results {
			elsewhere[uids[i]] = result.Err == nil && result.Link.Pod != at.pod
		}
		stale = nil
		for _, entry := range entries {
			if !entry.Uncertain && elsewhere[entry.UID] {
				stale = append(stale, biz.IndexUpdate{Op: biz.RemoveEntry, Entry: entry})
			}
		}
		return counts{}, 0, nil
	})
	if err != nil || len(stale) == 0 {
		return err
	}
	j.note(func(p *biz.JobProgress) { p.Faults.EntriesWithoutLink += int64(len(stale)) })
	if !j.job.Spec.Repair {
		return nil
	}
	if err := j.repair(ctx, at, stale); err != nil {
		return err
	}
	j.count(counts{done: len(stale)})
	return nil
}

// reported are the pods of services that have reports, as read lately.
type reported struct {
	run  *run
	asOf time.Time
	pods map[indexOf]bool
	read map[biz.ServiceKey]bool
}

// maxReported is how old it may be what is known of the pods.
const maxReported = 10 * time.Second

// has reports whether the pod has a report.
func (r *reported) has(ctx context.Context, at indexOf) (bool, error) {
	if r.pods == nil || time.Since(r.asOf) > maxReported {
		r.asOf, r.pods, r.read = time.Now(), make(map[indexOf]bool), make(map[biz.ServiceKey]bool)
	}
	if !r.read[at.service] {
		err := r.run.try(ctx, func() error {
			pods, err := r.run.Pods.List(ctx, at.service)
			for _, pod := range pods {
				r.pods[indexOf{at.service, pod.Pod}] = true
			}
			return err
		})
		if err != nil {
			return false, err
		}
		r.read[at.service] = true
	}
	return r.pods[at], nil
}
