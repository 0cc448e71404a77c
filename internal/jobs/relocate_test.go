package jobs_test

import (
	"testing"
	"time"

	"podlink/internal/biz"
	"podlink/internal/jobs"

	"github.com/stretchr/testify/require"
)

func TestRelocateMovesEveryLinkOnceAndSpreadsThem(t *testing.T) {
	inBubble(t, func(f *fleet) {
		f.link(0, 900, 1, biz.Forever, biz.SetTerms{Claim: 7})
		f.link(900, 1200, 1, 600, biz.SetTerms{})
		f.link(5000, 5010, 2, biz.Forever, biz.SetTerms{})
		moves := f.countMoves()
		f.start(options{})
		job := f.await(f.create(relocate(1)))
		require.Equal(f, biz.JobDone, job.State, job.Progress.Error)
		require.EqualValues(f, 1200, job.Progress.Done)
		require.Zero(f, job.Progress.Failed)
		require.Empty(f, job.Progress.Cursor)
		require.Less(f, job.EndMs-job.StartMs, int64(20_000))
		require.Len(f, moves(), 1200)
		for uid, n := range moves() {
			require.Equal(f, 1, n, uid)
		}
		counts := f.counts()
		require.Zero(f, counts[1])
		require.InDelta(f, 400, counts[0], 40)
		require.InDelta(f, 400, counts[3], 40)
		for _, i := range []int{0, 899, 900, 1199} {
			link := f.store.Link(keyOf(uidOf(i)))
			require.Equal(f, i < 900, link.Persistent(), "%s keeps its TTL", uidOf(i))
			require.LessOrEqual(f, link.TTL, biz.TTL(600))
			require.Zero(f, link.Claim, "no process of the new pod has claimed it")
		}
		pod, err := f.pods.Get(f.Context(), game, 1)
		require.NoError(f, err)
		require.Equal(f, biz.Shutdown, pod.Cordon)
	})
}

// countMoves returns the number of moves of each user from now on.
func (f *fleet) countMoves() func() map[string]int {
	moves := make(map[string]int)
	f.watch(func(before, after biz.Link) {
		if before.Exists() && after.Exists() && before.Pod != after.Pod {
			moves[after.Key.UID]++
		}
	})
	return func() map[string]int { return moves }
}

func TestRelocateGivesLinksTimeToEndByThemselves(t *testing.T) {
	inBubble(t, func(f *fleet) {
		f.link(0, 20, 1, biz.Forever, biz.SetTerms{})
		f.link(20, 30, 1, 15, biz.SetTerms{})
		f.start(options{})
		spec := relocate(1)
		spec.Grace = 60
		key := f.create(spec)
		time.Sleep(30 * time.Second)
		pod, err := f.pods.Get(f.Context(), game, 1)
		require.NoError(f, err)
		require.Equal(f, biz.DenyNew, pod.Cordon, "its agent hands its sessions over")
		require.Zero(f, f.job(key).Progress.Seen)
		require.NotEmpty(f, f.job(key).Progress.Note)
		job := f.await(key)
		require.Equal(f, biz.JobDone, job.State)
		require.EqualValues(f, 20, job.Progress.Done, "the others have expired")
		require.GreaterOrEqual(f, job.EndMs-job.StartMs, int64(60_000))
	})
	t.Run("it ends early when none is left", func(t *testing.T) {
		inBubble(t, func(f *fleet) {
			f.link(0, 10, 1, 15, biz.SetTerms{})
			f.start(options{})
			spec := relocate(1)
			spec.Grace = 3600
			job := f.await(f.create(spec))
			require.Equal(f, biz.JobDone, job.State)
			require.Less(f, job.EndMs-job.StartMs, int64(60_000))
		})
	})
}

func TestRelocateNeedsAnotherPod(t *testing.T) {
	inBubble(t, func(f *fleet) {
		f.link(0, 10, 1, biz.Forever, biz.SetTerms{})
		for _, pod := range []biz.PodID{0, 2, 3} {
			_, err := f.pods.Cordon(f.Context(), game, pod, biz.DenyNew, biz.Forever)
			require.NoError(f, err)
		}
		f.start(options{})
		job := f.await(f.create(relocate(1)))
		require.Equal(f, biz.JobFailed, job.State)
		require.Equal(f, "no other pod of the service takes new links", job.Progress.Error)
		pod, err := f.pods.Get(f.Context(), game, 1)
		require.NoError(f, err)
		require.Equal(f, biz.Ready, pod.Cordon, "nothing has changed")
	})
}

func TestRelocateWaitsForAPodThatTakesLinks(t *testing.T) {
	inBubble(t, func(f *fleet) {
		f.link(0, 10, 1, biz.Forever, biz.SetTerms{})
		spec := relocate(1)
		spec.Grace = 10
		f.start(options{})
		key := f.create(spec)
		time.Sleep(5 * time.Second)
		for _, pod := range []biz.PodID{0, 2, 3} {
			_, err := f.pods.Cordon(f.Context(), game, pod, biz.DenyNew, biz.Forever)
			require.NoError(f, err)
		}
		time.Sleep(time.Minute)
		require.Equal(f, biz.JobRunning, f.job(key).State)
		require.Equal(f, "no other pod takes new links: the job goes on when one does", f.job(key).Progress.Note)
		_, err := f.pods.Cordon(f.Context(), game, 3, biz.Ready, biz.Forever)
		require.NoError(f, err)
		require.Equal(f, biz.JobDone, f.await(key).State)
		require.Equal(f, map[biz.PodID]int64{3: 10}, f.counts())
	})
}

func TestRelocateFailsWhenTheCordonIsLifted(t *testing.T) {
	inBubble(t, func(f *fleet) {
		f.link(0, 1000, 1, biz.Forever, biz.SetTerms{})
		f.start(options{rate: 100})
		key := f.create(relocate(1))
		time.Sleep(5 * time.Second)
		_, err := f.pods.Cordon(f.Context(), game, 1, biz.Ready, biz.Forever)
		require.NoError(f, err)
		job := f.await(key)
		require.Equal(f, biz.JobFailed, job.State)
		require.Equal(f, "the cordon of the pod was lifted", job.Progress.Error)
		require.Positive(f, f.counts()[1], "the rest stays")
	})
}

// TestRelocateOfAPodThatIsGone: links to a pod that was removed, or has never reported, are moved like any other.
func TestRelocateOfAPodThatIsGone(t *testing.T) {
	inBubble(t, func(f *fleet) {
		f.link(0, 10, 9, biz.Forever, biz.SetTerms{})
		f.start(options{})
		require.Equal(f, biz.JobDone, f.await(f.create(relocate(9))).State)
		require.Zero(f, f.counts()[9])
	})
}

// TestRelocateEndsOnlyWithACompleteIndex: an index that lacks links hides them from the job.
func TestRelocateEndsOnlyWithACompleteIndex(t *testing.T) {
	inBubble(t, func(f *fleet) {
		f.link(0, 100, 1, biz.Forever, biz.SetTerms{})
		f.store.SetCompleteness(2, 1)
		f.store.Hide(func(uid string) bool { return uid < uidOf(10) })
		f.start(options{})
		key := f.create(relocate(1))
		time.Sleep(time.Minute)
		job := f.job(key)
		require.Equal(f, biz.JobRunning, job.State)
		require.EqualValues(f, 90, job.Progress.Done)
		require.Equal(f, "the index is incomplete: the job ends after a census has gone over all links", job.Progress.Note)
		f.store.Hide(nil)
		f.store.SetCompleteness(2, 2)
		require.EqualValues(f, 100, f.await(key).Progress.Done)
		require.Zero(f, f.counts()[1])
	})
}

func TestRelocateLeavesLinksThatItCannotRead(t *testing.T) {
	inBubble(t, func(f *fleet) {
		f.link(0, 10, 1, biz.Forever, biz.SetTerms{})
		f.store.Corrupt("ns", uidOf(3))
		f.start(options{})
		job := f.await(f.create(relocate(1)))
		require.Equal(f, biz.JobDone, job.State)
		require.EqualValues(f, 9, job.Progress.Done)
		require.Positive(f, job.Progress.Failed)
	})
}

func TestDryRunOfRelocateChangesNothing(t *testing.T) {
	inBubble(t, func(f *fleet) {
		f.link(0, 100, 1, biz.Forever, biz.SetTerms{})
		moves := f.countMoves()
		f.start(options{})
		spec := relocate(1)
		spec.DryRun, spec.Grace = true, 3600
		job := f.await(f.create(spec))
		require.Equal(f, biz.JobDone, job.State)
		require.EqualValues(f, 100, job.Progress.Done)
		require.Empty(f, moves())
		pod, err := f.pods.Get(f.Context(), game, 1)
		require.NoError(f, err)
		require.Equal(f, biz.Ready, pod.Cordon)
	})
}

// TestRelocateSurvivesAStoreThatIsAway: it waits, says so, and goes on.
func TestRelocateSurvivesAStoreThatIsAway(t *testing.T) {
	for name, away := range map[string][2]func(f *fleet){
		"killed": {func(f *fleet) { f.store.Kill() }, func(f *fleet) { f.store.Restart() }},
		"frozen": {func(f *fleet) { f.store.Freeze() }, func(f *fleet) { f.store.Unfreeze() }},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(f *fleet) {
				f.link(0, 2000, 1, biz.Forever, biz.SetTerms{})
				moves := f.countMoves()
				f.start(options{rate: 500})
				key := f.create(relocate(1))
				time.Sleep(2500 * time.Millisecond)
				away[0](f)
				time.Sleep(10 * time.Second)
				away[1](f)
				job := f.await(key)
				require.Equal(f, biz.JobDone, job.State)
				require.Zero(f, f.counts()[1])
				require.Len(f, moves(), 2000)
				for uid, n := range moves() {
					require.Equal(f, 1, n, uid)
				}
			})
		})
	}
}

var _ jobs.Observer = jobs.NopObserver{}

// watch calls do for each change of a link.
func (f *fleet) watch(do func(before, after biz.Link)) { f.store.Watch(watcher(do)) }
