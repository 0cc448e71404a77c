package biz_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"podlink/internal/biz"
	"podlink/test/kit/model"

	"github.com/stretchr/testify/require"
)

// openJobs returns the use-case on a store in which pods 0 and 1 of game/room are READY.
func openJobs(t *testing.T) (*biz.JobUsecase, *model.Podlink) {
	t.Helper()
	podlink := model.NewStore().Podlink()
	for pod := range biz.PodID(2) {
		_, err := podlink.Pods().Set(t.Context(), service, biz.Report{Pod: pod, State: "up", TTL: biz.Forever, Capacity: biz.NoCapacity})
		require.NoError(t, err)
	}
	views := biz.NewPodViews(podlink.Pods(), biz.NopObserver{})
	t.Cleanup(views.Stop)
	return biz.NewJobUsecase(podlink.Jobs(), views, biz.JobOptions{Index: true, Rate: 2000}), podlink
}

// relocation asks for a job that is possible.
func relocation() biz.NewJob {
	pod := biz.PodID(1)
	return biz.NewJob{Namespace: "game", Service: "room", Kind: biz.Relocate, Pod: &pod}
}

func removal() biz.NewJob {
	return biz.NewJob{Namespace: "game", Service: "room", Kind: biz.RemoveAll, Confirm: "room"}
}

func TestCreateJob(t *testing.T) {
	jobs, _ := openJobs(t)
	request := relocation()
	request.Rate, request.Reason, request.Grace = 100, "a new version", 60
	job, err := jobs.Create(t.Context(), request, "token:ops")
	require.NoError(t, err)
	require.Equal(t, biz.JobPending, job.State)
	require.Equal(t, "token:ops", job.CreatedBy)
	require.Equal(t, biz.JobSpec{Kind: biz.Relocate, Service: "room", Pod: 1, Rate: 100, Reason: "a new version", Grace: 60}, job.Spec)
	require.NotZero(t, job.CreateMs)
	got, err := jobs.Get(t.Context(), job.Key, nil)
	require.NoError(t, err)
	require.Equal(t, job, got)
	other, err := jobs.Create(t.Context(), request, "token:ops")
	require.NoError(t, err)
	require.NotEqual(t, job.Key, other.Key, "without a request_id each is another job")
}

func TestARequestIDIsForOneJob(t *testing.T) {
	jobs, podlink := openJobs(t)
	request := relocation()
	request.RequestID = "rollout:7"
	job, err := jobs.Create(t.Context(), request, "token:ops")
	require.NoError(t, err)
	for _, pod := range []biz.PodID{0, 1} {
		_, err := podlink.Pods().Cordon(t.Context(), service, pod, biz.Shutdown, biz.Forever)
		require.NoError(t, err)
	}
	again, err := jobs.Create(t.Context(), request, "token:other")
	require.NoError(t, err, "even if the job could not be started now")
	require.Equal(t, job, again)
	request.Grace = 5
	_, err = jobs.Create(t.Context(), request, "token:ops")
	var invalid *biz.InvalidArgumentError
	require.ErrorAs(t, err, &invalid)
	require.Equal(t, "request_id", invalid.Field)
}

func TestRelocateIsRefusedWithoutAnotherPod(t *testing.T) {
	for name, change := range map[string]func(*testing.T, biz.PodRepo) error{
		"cordoned": func(t *testing.T, pods biz.PodRepo) error {
			_, err := pods.Cordon(t.Context(), service, 0, biz.DenyNew, biz.Forever)
			return err
		},
		"full": func(t *testing.T, pods biz.PodRepo) error {
			_, err := pods.Set(t.Context(), service, biz.Report{Pod: 0, State: "up", TTL: biz.Forever, Load: 5, Capacity: 5})
			return err
		},
		"gone": func(t *testing.T, pods biz.PodRepo) error {
			_, err := pods.Remove(t.Context(), service, 0)
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			jobs, podlink := openJobs(t)
			require.NoError(t, change(t, podlink.Pods()))
			_, err := jobs.Create(t.Context(), relocation(), "")
			require.ErrorIs(t, err, biz.ErrNoAvailablePod)
		})
	}
}

func TestJobsNeedTheIndex(t *testing.T) {
	podlink := model.NewStore().Podlink()
	views := biz.NewPodViews(podlink.Pods(), biz.NopObserver{})
	t.Cleanup(views.Stop)
	jobs := biz.NewJobUsecase(podlink.Jobs(), views, biz.JobOptions{Rate: 2000})
	_, err := jobs.Create(t.Context(), removal(), "")
	require.ErrorIs(t, err, biz.ErrIndexDisabled)
}

func TestCreateJobRefusesBadFields(t *testing.T) {
	jobs, _ := openJobs(t)
	pod, negative := biz.PodID(1), biz.PodID(-1)
	release := func(r *biz.NewJob) { r.Kind, r.Keep, r.Below = biz.Release, 60, 5 }
	remove := func(r *biz.NewJob) { *r = removal() }
	verify := func(r *biz.NewJob) { r.Kind, r.Pod = biz.Verify, nil }
	for name, row := range map[string]struct {
		field  string
		kind   func(*biz.NewJob) // nil: relocate
		change func(*biz.NewJob)
	}{
		"no namespace":                {"namespace", nil, func(r *biz.NewJob) { r.Namespace = "" }},
		"no kind":                     {"kind", nil, func(r *biz.NewJob) { r.Kind = "" }},
		"an unknown kind":             {"kind", nil, func(r *biz.NewJob) { r.Kind = "MOVE" }},
		"no service":                  {"service", nil, func(r *biz.NewJob) { r.Service = "" }},
		"no service to release":       {"service", release, func(r *biz.NewJob) { r.Service = "" }},
		"a malformed service":         {"service", verify, func(r *biz.NewJob) { r.Service = "a:b" }},
		"no pod":                      {"pod_id", nil, func(r *biz.NewJob) { r.Pod = nil }},
		"a negative pod":              {"pod_id", release, func(r *biz.NewJob) { r.Pod = &negative }},
		"a pod to verify":             {"pod_id", verify, func(r *biz.NewJob) { r.Pod = &pod }},
		"a pod to remove":             {"pod_id", remove, func(r *biz.NewJob) { r.Pod = &pod }},
		"a negative rate":             {"rate", nil, func(r *biz.NewJob) { r.Rate = -1 }},
		"more than podlink allows":    {"rate", nil, func(r *biz.NewJob) { r.Rate = 2001 }},
		"a line in the reason":        {"reason", nil, func(r *biz.NewJob) { r.Reason = "a\nb" }},
		"a malformed request_id":      {"request_id", nil, func(r *biz.NewJob) { r.RequestID = "a b" }},
		"a dry run of a check":        {"dry_run", verify, func(r *biz.NewJob) { r.DryRun = true }},
		"a negative grace":            {"grace_seconds", nil, func(r *biz.NewJob) { r.Grace = -1 }},
		"a grace of more than a day":  {"grace_seconds", nil, func(r *biz.NewJob) { r.Grace = 86_401 }},
		"grace for a release":         {"grace_seconds", release, func(r *biz.NewJob) { r.Grace = 1 }},
		"no time to keep":             {"keep_seconds", release, func(r *biz.NewJob) { r.Keep = 0 }},
		"a relocate that keeps":       {"keep_seconds", nil, func(r *biz.NewJob) { r.Keep = 1 }},
		"no generation":               {"below_generation", release, func(r *biz.NewJob) { r.Below = 0 }},
		"too great a generation":      {"below_generation", release, func(r *biz.NewJob) { r.Below = biz.MaxGeneration + 1 }},
		"a relocate below":            {"below_generation", nil, func(r *biz.NewJob) { r.Below = 1 }},
		"no confirmation":             {"confirm", remove, func(r *biz.NewJob) { r.Confirm = "" }},
		"the wrong name":              {"confirm", remove, func(r *biz.NewJob) { r.Confirm = "game" }},
		"the service for a namespace": {"confirm", remove, func(r *biz.NewJob) { r.Service = "" }},
		"a confirmed relocate":        {"confirm", nil, func(r *biz.NewJob) { r.Confirm = "room" }},
		"a relocate that repairs":     {"repair", nil, func(r *biz.NewJob) { r.Repair = true }},
	} {
		t.Run(name, func(t *testing.T) {
			request := relocation()
			if row.kind != nil {
				row.kind(&request)
			}
			_, err := jobs.Create(t.Context(), request, "")
			require.NoError(t, err, "without the change")
			row.change(&request)
			_, err = jobs.Create(t.Context(), request, "")
			var invalid *biz.InvalidArgumentError
			require.ErrorAs(t, err, &invalid)
			require.Equal(t, row.field, invalid.Field)
		})
	}
}

// TestJobsOfServicesThatACallerSees: others are not found, and not listed; a job about a whole namespace is for those who see all of it.
func TestJobsOfServicesThatACallerSees(t *testing.T) {
	jobs, podlink := openJobs(t)
	var keys []biz.JobKey
	for _, name := range []string{"room", "chat", ""} {
		request := biz.NewJob{Namespace: "game", Service: name, Kind: biz.Verify}
		job, err := jobs.Create(t.Context(), request, "")
		require.NoError(t, err)
		keys = append(keys, job.Key)
		time.Sleep(2 * time.Millisecond)
	}
	sees := func(key biz.ServiceKey) bool { return key.Service == "room" }
	_, err := jobs.Get(t.Context(), keys[0], sees)
	require.NoError(t, err)
	for _, key := range keys[1:] {
		_, err := jobs.Get(t.Context(), key, sees)
		require.ErrorIs(t, err, biz.ErrJobNotFound)
		_, err = jobs.Cancel(t.Context(), key, sees)
		require.ErrorIs(t, err, biz.ErrJobNotFound)
		stored, err := podlink.Jobs().Get(t.Context(), key)
		require.NoError(t, err)
		require.Equal(t, biz.JobPending, stored.State)
	}
	listed, next, err := jobs.List(t.Context(), "game", sees, biz.Page{})
	require.NoError(t, err)
	require.Empty(t, next)
	require.Len(t, listed, 1)
	require.Equal(t, keys[0], listed[0].Key)
}

func TestListJobsByPages(t *testing.T) {
	jobs, _ := openJobs(t)
	var want []biz.JobKey
	for range 7 {
		job, err := jobs.Create(t.Context(), removal(), "")
		require.NoError(t, err)
		want = append([]biz.JobKey{job.Key}, want...)
		time.Sleep(2 * time.Millisecond)
	}
	for _, size := range []int32{1, 2, 3, 7, 100} {
		var got []biz.JobKey
		for token, first := "", true; first || token != ""; first = false {
			page, next, err := jobs.List(t.Context(), "game", nil, biz.Page{Size: size, Token: token})
			require.NoError(t, err)
			require.LessOrEqual(t, len(page), int(size))
			for _, job := range page {
				got = append(got, job.Key)
			}
			token = next
		}
		require.Equal(t, want, got, "the latest first, by pages of %d", size)
	}
	_, another, err := jobs.List(t.Context(), "game", nil, biz.Page{Size: 1})
	require.NoError(t, err)
	for name, row := range map[string]struct {
		namespace, field string
		page             biz.Page
	}{
		"too many":                   {"game", "page_size", biz.Page{Size: 1001}},
		"no token":                   {"game", "page_token", biz.Page{Token: "a:b"}},
		"a name":                     {"game", "page_token", biz.Page{Token: "AAAA"}},
		"a token without a position": {"game", "page_token", biz.Page{Token: another[:strings.Index(another, ".")+1]}},
		"that of another namespace":  {"chat", "page_token", biz.Page{Token: another}},
	} {
		_, _, err := jobs.List(t.Context(), row.namespace, nil, row.page)
		var invalid *biz.InvalidArgumentError
		require.ErrorAs(t, err, &invalid, name)
		require.Equal(t, row.field, invalid.Field, name)
	}
}

func TestCancelJob(t *testing.T) {
	jobs, podlink := openJobs(t)
	pending, err := jobs.Create(t.Context(), removal(), "")
	require.NoError(t, err)
	cancelled, err := jobs.Cancel(t.Context(), pending.Key, nil)
	require.NoError(t, err)
	require.Equal(t, biz.JobCancelled, cancelled.State)
	again, err := jobs.Cancel(t.Context(), pending.Key, nil)
	require.NoError(t, err)
	require.Equal(t, cancelled, again)

	running, err := jobs.Create(t.Context(), removal(), "")
	require.NoError(t, err)
	_, lease, err := podlink.Jobs().Take(t.Context(), running.Key)
	require.NoError(t, err)
	got, err := jobs.Cancel(t.Context(), running.Key, nil)
	require.NoError(t, err)
	require.Equal(t, biz.JobRunning, got.State, "until the process that runs it knows")
	told, err := podlink.Jobs().Save(t.Context(), running.Key, lease, biz.JobRunning, biz.JobProgress{})
	require.NoError(t, err)
	require.True(t, told)
	_, err = jobs.Cancel(t.Context(), biz.JobKey{Namespace: "game", ID: "nothing"}, nil)
	require.ErrorIs(t, err, biz.ErrJobNotFound)
}

// TestWatchJob: it sends what has changed, at most each second, and ends with the job.
func TestWatchJob(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		jobs, podlink := openJobs(t)
		job, err := jobs.Create(t.Context(), removal(), "")
		require.NoError(t, err)
		repo := podlink.Jobs()
		var sent []int64
		ended := make(chan error, 1)
		go func() {
			ended <- jobs.Watch(t.Context(), job.Key, nil, func(job biz.Job) error {
				sent = append(sent, job.Progress.Done)
				return nil
			})
		}()
		time.Sleep(3450 * time.Millisecond)
		_, lease, err := repo.Take(t.Context(), job.Key)
		require.NoError(t, err)
		for done := range int64(30) {
			_, err = repo.Save(t.Context(), job.Key, lease, biz.JobRunning, biz.JobProgress{Done: done})
			require.NoError(t, err)
			time.Sleep(100 * time.Millisecond)
		}
		_, err = repo.Save(t.Context(), job.Key, lease, biz.JobDone, biz.JobProgress{Done: 30})
		require.NoError(t, err)
		require.NoError(t, <-ended)
		require.Equal(t, []int64{0, 5, 15, 25, 30}, sent)
	})
	t.Run("the caller leaves", func(t *testing.T) {
		jobs, _ := openJobs(t)
		job, err := jobs.Create(t.Context(), removal(), "")
		require.NoError(t, err)
		left := errors.New("the stream has ended")
		require.ErrorIs(t, jobs.Watch(t.Context(), job.Key, nil, func(biz.Job) error { return left }), left)
	})
}

// TestRelocateKeepsTTLsAndBringsNobodyBack on the embedded store, whose scripts decide.
func TestRelocateKeepsTTLsAndBringsNobodyBack(t *testing.T) {
	links, d := openIntercepted(t)
	set := func(uid string, pod biz.PodID, ttl biz.TTL) biz.Link {
		change, err := d.Set(t.Context(), linkKey(uid), pod, ttl, biz.SetTerms{})
		require.NoError(t, err)
		return change.Link
	}
	set("stays", 9, biz.Forever)
	set("temporary", 9, 600)
	elsewhere := set("elsewhere", 1, 600)
	set("leaves", 9, biz.Forever)
	set("moves", 9, biz.Forever)
	d.beforeSet = func(ctx context.Context, key biz.LinkKey) {
		switch key.UID {
		case "leaves":
			_, err := d.Remove(ctx, key, 0, biz.RemoveTerms{})
			require.NoError(t, err)
		case "moves":
			_, err := d.Set(ctx, key, 1, biz.Forever, biz.SetTerms{})
			require.NoError(t, err)
		}
	}
	results, err := links.Relocate(t.Context(), service, 9, []string{"stays", "temporary", "elsewhere", "nobody", "leaves", "moves"})
	require.NoError(t, err)
	for i, want := range []struct {
		outcome    biz.Outcome
		exists     bool
		persistent bool
	}{
		{biz.Relinked, true, true}, {biz.Relinked, true, false}, {biz.Existing, true, false}, {biz.Existing, false, false},
		{biz.Existing, false, false}, {biz.Existing, true, true},
	} {
		require.NoError(t, results[i].Err)
		require.Equal(t, want.outcome, results[i].Outcome, "%d", i)
		require.Equal(t, want.exists, results[i].Link.Exists(), "%d", i)
		require.Equal(t, want.persistent, results[i].Link.Persistent(), "%d", i)
		require.NotEqual(t, biz.PodID(9), results[i].Link.Pod)
	}
	require.Equal(t, elsewhere.Epoch, results[2].Link.Epoch)
	for _, uid := range []string{"nobody", "leaves"} {
		link, err := d.LinkRepo.Get(t.Context(), linkKey(uid))
		require.NoError(t, err)
		require.False(t, link.Exists(), uid)
	}
}
