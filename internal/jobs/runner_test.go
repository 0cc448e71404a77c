package jobs_test

import (
	"context"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"podlink/internal/biz"
	"podlink/internal/jobs"
	"podlink/test/kit/model"

	"github.com/stretchr/testify/require"
)

// TestAnotherProcessTakesOver whenever the one that runs the job dies, from the last progress that was saved. No link moves twice.
func TestAnotherProcessTakesOver(t *testing.T) {
	for after := 1500 * time.Millisecond; after < 12*time.Second; after += 900 * time.Millisecond {
		t.Run(after.String(), func(t *testing.T) {
			inBubble(t, func(f *fleet) {
				f.link(0, 2000, 1, biz.Forever, biz.SetTerms{})
				moves := f.countMoves()
				spec := relocate(1)
				spec.Grace = 2
				first := f.start(options{rate: 500})
				key := f.create(spec)
				time.Sleep(after)
				require.Equal(f, 1, first.took())
				first.freeze() // It never goes on: it is dead.
				second := f.start(options{rate: 500})
				job := f.await(key)
				require.Equal(f, biz.JobDone, job.State)
				require.Equal(f, 1, second.took())
				require.Zero(f, f.counts()[1])
				f.requireOnce(moves(), 2000)
				require.GreaterOrEqual(f, job.Progress.Done, int64(2000-2*500), "at most what was done since the last save is not counted")
				require.LessOrEqual(f, job.Progress.Done, int64(2000))
			})
		})
	}
}

// requireOnce requires that so many users were moved, each once.
func (f *fleet) requireOnce(moves map[string]int, users int) {
	f.Helper()
	require.Len(f, moves, users)
	for uid, n := range moves {
		require.Equal(f, 1, n, uid)
	}
}

// TestAProcessThatStopsHandsItsJobOver at once, not after the lease has ended.
func TestAProcessThatStopsHandsItsJobOver(t *testing.T) {
	inBubble(t, func(f *fleet) {
		f.link(0, 2000, 1, biz.Forever, biz.SetTerms{})
		first := f.start(options{rate: 500})
		key := f.create(relocate(1))
		time.Sleep(2 * time.Second)
		second := f.start(options{rate: 500})
		first.stop()
		require.Equal(f, biz.JobRunning, f.job(key).State)
		time.Sleep(1100 * time.Millisecond)
		require.Equal(f, 1, second.took())
		job := f.await(key)
		require.Equal(f, biz.JobDone, job.State)
		require.EqualValues(f, 2000, job.Progress.Done, "all of its progress was saved")
	})
}

// zombies runs a job on two processes that are stopped and go on at random, each for longer than a lease or shorter, and returns the
// moves of each user, and how often two processes ran the job although none of them was stopped.
func (f *fleet) zombies(random *rand.Rand, o options) (moves map[string]int, both int) {
	counted := f.countMoves()
	processes := []*process{f.start(o), f.start(o)}
	key := f.create(relocate(1))
	f.Cleanup(func() {
		for _, p := range processes {
			p.resume()
		}
	})
	for stopped := 0; !f.job(key).State.Ended(); stopped = 1 - stopped {
		time.Sleep(time.Duration(random.IntN(3000)) * time.Millisecond)
		if running(processes[0])+running(processes[1]) > 1 {
			both++
		}
		processes[stopped].freeze()
		time.Sleep(time.Duration(random.IntN(12_000)) * time.Millisecond)
		processes[stopped].resume()
		time.Sleep(2 * time.Second) // Enough to find that the lease was lost.
	}
	ended := f.job(key)
	time.Sleep(20 * time.Second)
	require.Equal(f, ended, f.job(key), "a job that has ended does not change")
	return counted(), both
}

// running returns 1 while the process runs a job.
func running(p *process) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.taken) - len(p.left)
}

// TestAZombieChangesNothingTwice: a process that goes on after its lease has ended stops at once, and the step that it had begun does
// nothing that was done since.
func TestAZombieChangesNothingTwice(t *testing.T) {
	for seed := range uint64(6) {
		inBubble(t, func(f *fleet) {
			f.link(0, 400, 1, biz.Forever, biz.SetTerms{})
			moves, both := f.zombies(rand.New(rand.NewPCG(seed, 1)), options{rate: 25})
			f.requireOnce(moves, 400)
			require.Zero(f, both, "seed %d", seed)
			require.Zero(f, f.counts()[1])
		})
	}
}

// TestZombiesWithoutALeaseAreFound: the test above fails for a store that gives everybody the lease.
func TestZombiesWithoutALeaseAreFound(t *testing.T) {
	found := 0
	for seed := range uint64(5) {
		inBubble(t, func(f *fleet) {
			f.link(0, 400, 1, biz.Forever, biz.SetTerms{})
			_, both := f.zombies(rand.New(rand.NewPCG(seed, 1)), options{rate: 25, podlink: func(p *model.Podlink) { p.LeaseForAll = true }})
			found += both
		})
	}
	require.Positive(t, found)
}

// forcing moves links without the condition that they are still the ones that were read.
type forcing struct{ biz.LinkRepo }

func (l forcing) BatchSet(ctx context.Context, key biz.ServiceKey, items []biz.SetItem) []biz.ChangeResult {
	for i := range items {
		items[i].Terms = biz.SetTerms{}
	}
	return l.LinkRepo.BatchSet(ctx, key, items)
}

// slow holds a process between the reads and the writes of a page, as a zombie may be held.
type slow struct {
	biz.LinkRepo
	by func() time.Duration
}

func (l slow) BatchSet(ctx context.Context, key biz.ServiceKey, items []biz.SetItem) []biz.ChangeResult {
	time.Sleep(l.by())
	return l.LinkRepo.BatchSet(ctx, key, items)
}

// sessions lets users join, play and leave while a job moves the links of pod 1, and returns the users for whom something went
// wrong: one who has left must not have a link, and one who plays must have one, and not at pod 1.
func (f *fleet) sessions(random *rand.Rand, o options, wrap func(biz.LinkRepo) biz.LinkRepo, bad bool) (wrong []string) {
	f.link(0, 300, 1, biz.Forever, biz.SetTerms{Claim: 7})
	o.stores = func(s *jobs.Stores) {
		views := biz.NewPodViews(f.store.Podlink().Pods(), biz.NopObserver{})
		f.Cleanup(views.Stop)
		usecase := biz.NewLinkUsecase(wrap(s.Links), views, biz.Limits{MaxBatch: 1000}, biz.NopObserver{})
		s.Moves = usecase
		if bad {
			s.Moves = computing{usecase}
		}
		s.Pods = views
	}
	f.start(o)
	views := biz.NewPodViews(f.store.Podlink().Pods(), biz.NopObserver{})
	f.Cleanup(views.Stop)
	callers := biz.NewLinkUsecase(f.links, views, biz.Limits{MaxBatch: 1000}, biz.NopObserver{})
	key := f.create(relocate(1))
	plays := make(map[string]bool)
	for i := range 300 {
		plays[uidOf(i)] = true
	}
	for !f.job(key).State.Ended() {
		time.Sleep(time.Duration(random.IntN(30)) * time.Millisecond)
		uid := uidOf(random.IntN(400))
		if plays[uid] {
			_, err := callers.Remove(f.Context(), keyOf(uid), 0, biz.RemoveTerms{})
			require.NoError(f, err)
		} else {
			_, err := callers.Compute(f.Context(), keyOf(uid), biz.ComputeRequest{TTL: biz.Forever})
			require.NoError(f, err)
		}
		plays[uid] = !plays[uid]
	}
	require.Equal(f, biz.JobDone, f.job(key).State)
	for i := range 400 {
		link := f.store.Link(keyOf(uidOf(i)))
		if link.Exists() != plays[uidOf(i)] || link.Pod == 1 {
			wrong = append(wrong, uidOf(i))
		}
	}
	return wrong
}

// computing moves links by plain computes, which also make links.
type computing struct{ *biz.LinkUsecase }

func (c computing) Relocate(ctx context.Context, key biz.ServiceKey, _ biz.PodID, uids []string) ([]biz.ComputedResult, error) {
	request := biz.BatchComputeRequest{TTL: biz.Forever}
	for _, uid := range uids {
		request.Items = append(request.Items, biz.ComputeItem{UID: uid})
	}
	return c.BatchCompute(ctx, key, request)
}

// TestRelocateAmongSessions: while users come and go, nobody is lost, doubled, or brought back.
func TestRelocateAmongSessions(t *testing.T) {
	for seed := range uint64(10) {
		inBubble(t, func(f *fleet) {
			random := rand.New(rand.NewPCG(seed, 2))
			wrong := f.sessions(random, options{rate: 100}, slowly(random, nil), false)
			require.Empty(f, wrong, "seed %d", seed)
		})
	}
}

func slowly(random *rand.Rand, under func(biz.LinkRepo) biz.LinkRepo) func(biz.LinkRepo) biz.LinkRepo {
	return func(links biz.LinkRepo) biz.LinkRepo {
		if under != nil {
			links = under(links)
		}
		own := rand.New(rand.NewPCG(random.Uint64(), 3)) // The job runs beside the test.
		return slow{links, func() time.Duration { return time.Duration(own.IntN(400)) * time.Millisecond }}
	}
}

// TestBadRelocatesAmongSessionsAreFound: the test above fails for moves without a condition, and for moves that make links.
func TestBadRelocatesAmongSessionsAreFound(t *testing.T) {
	for name, row := range map[string]struct {
		under func(biz.LinkRepo) biz.LinkRepo
		bad   bool
	}{
		"without the epoch":    {func(links biz.LinkRepo) biz.LinkRepo { return forcing{links} }, false},
		"by computes of a uid": {nil, true},
	} {
		t.Run(name, func(t *testing.T) {
			found := 0
			for seed := range uint64(5) {
				inBubble(t, func(f *fleet) {
					random := rand.New(rand.NewPCG(seed, 2))
					found += len(f.sessions(random, options{rate: 100}, slowly(random, row.under), row.bad))
				})
			}
			require.Positive(t, found)
		})
	}
}

func TestCancel(t *testing.T) {
	t.Run("a pending job never runs", func(t *testing.T) {
		inBubble(t, func(f *fleet) {
			f.link(0, 10, 1, biz.Forever, biz.SetTerms{})
			key := f.create(relocate(1))
			_, err := f.jobs.Cancel(f.Context(), key)
			require.NoError(f, err)
			p := f.start(options{})
			time.Sleep(10 * time.Second)
			require.Zero(f, p.took())
			require.Equal(f, biz.JobCancelled, f.job(key).State)
		})
	})
	t.Run("a running job stops, and what it has done stays", func(t *testing.T) {
		inBubble(t, func(f *fleet) {
			f.link(0, 2000, 1, biz.Forever, biz.SetTerms{})
			f.start(options{rate: 100})
			key := f.create(relocate(1))
			time.Sleep(5 * time.Second)
			_, err := f.jobs.Cancel(f.Context(), key)
			require.NoError(f, err)
			time.Sleep(1100 * time.Millisecond)
			job := f.job(key)
			require.Equal(f, biz.JobCancelled, job.State)
			require.Positive(f, job.Progress.Done)
			require.EqualValues(f, 2000-job.Progress.Done, f.counts()[1], "every move was counted")
		})
	})
	t.Run("a job whose process has died", func(t *testing.T) {
		inBubble(t, func(f *fleet) {
			f.link(0, 2000, 1, biz.Forever, biz.SetTerms{})
			first := f.start(options{rate: 100})
			key := f.create(relocate(1))
			time.Sleep(5 * time.Second)
			first.freeze()
			_, err := f.jobs.Cancel(f.Context(), key)
			require.NoError(f, err)
			f.start(options{rate: 100})
			require.Equal(f, biz.JobCancelled, f.await(key).State)
		})
	})
}

// TestAProcessRunsFourJobsAtOnce, and the others after them.
func TestAProcessRunsFourJobsAtOnce(t *testing.T) {
	inBubble(t, func(f *fleet) {
		var keys []biz.JobKey
		for range 6 {
			spec := relocate(9)
			spec.Grace = 30
			keys = append(keys, f.create(spec))
			time.Sleep(time.Millisecond)
		}
		f.store.SetCompleteness(2, 1) // So that they don't end early.
		p := f.start(options{})
		time.Sleep(10 * time.Second)
		require.Equal(f, 4, p.took())
		require.Equal(f, biz.JobPending, f.job(keys[5]).State, "the oldest are first")
		f.store.SetCompleteness(2, 2)
		for _, key := range keys {
			require.Equal(f, biz.JobDone, f.await(key).State)
		}
	})
}

// TestRunEndsWithItsContext even while the store does not answer.
func TestRunEndsWithItsContext(t *testing.T) {
	inBubble(t, func(f *fleet) {
		f.link(0, 100, 1, biz.Forever, biz.SetTerms{})
		p := f.start(options{rate: 10})
		f.create(relocate(1))
		time.Sleep(3 * time.Second)
		f.store.Freeze()
		time.Sleep(time.Second)
		began := time.Now()
		p.stop()
		require.LessOrEqual(f, time.Since(began), 5*time.Second)
		synctest.Wait()
		f.store.Unfreeze()
	})
}
