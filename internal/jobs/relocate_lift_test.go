package jobs_test

import (
	"testing"
	"time"

	"podlink/internal/biz"

	"github.com/stretchr/testify/require"
)

// lift lifts the cordon of pod 1, as an operator does who wants the pod back.
func (f *fleet) lift() {
	f.Helper()
	_, err := f.pods.Cordon(f.Context(), game, 1, biz.Ready, biz.Forever)
	require.NoError(f, err)
}

// TestNobodyIsMovedFromAPodThatIsWantedBack: whenever the cordon is lifted the job fails, and nobody sets the cordon again.
func TestNobodyIsMovedFromAPodThatIsWantedBack(t *testing.T) {
	for name, test := range map[string]struct {
		grace int32
		kept  int64 // links that the pod keeps at least
		meant func(f *fleet, p *process)
	}{
		"in the time for links to end by themselves": {3600, 1000, func(f *fleet, _ *process) { f.lift() }},
		"in that time, and another process takes the job over": {3600, 1000, func(f *fleet, p *process) {
			p.stop()
			f.lift()
			f.start(options{rate: 100})
		}},
		"between two links": {0, 400, func(f *fleet, _ *process) { f.lift() }},
		"between two links, and another process takes the job over": {0, 1, func(f *fleet, p *process) {
			p.stop()
			f.lift()
			f.start(options{rate: 100})
		}},
		"between two links, and the process is killed": {0, 1, func(f *fleet, p *process) {
			p.freeze()
			f.lift()
			f.start(options{rate: 100})
			time.Sleep(30 * time.Second)
			p.resume()
		}},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(f *fleet) {
				f.link(0, 1000, 1, biz.Forever, biz.SetTerms{})
				p := f.start(options{rate: 100})
				spec := relocate(1)
				spec.Grace = test.grace
				key := f.create(spec)
				time.Sleep(4500 * time.Millisecond)
				test.meant(f, p)
				job := f.await(key)
				require.Equal(f, biz.JobFailed, job.State)
				require.Equal(f, "the cordon of the pod was lifted", job.Progress.Error)
				require.Less(f, job.EndMs-job.StartMs, int64(120_000))
				require.GreaterOrEqual(f, f.counts()[1], test.kept)
				pod, err := f.pods.Get(f.Context(), game, 1)
				require.NoError(f, err)
				require.Equal(f, biz.Ready, pod.Cordon)
			})
		})
	}
}

// TestRelocatesOfAllPodsLeaveOneThatTakesLinks: jobs that begin at the same time all see that other pods take links.
func TestRelocatesOfAllPodsLeaveOneThatTakesLinks(t *testing.T) {
	for _, grace := range []int32{0, 60} {
		inBubble(t, func(f *fleet) {
			for pod := range biz.PodID(4) {
				f.link(100*int(pod), 100*int(pod+1), pod, biz.Forever, biz.SetTerms{})
			}
			for range 2 {
				f.start(options{})
			}
			for pod := range biz.PodID(4) {
				spec := relocate(pod)
				spec.Grace = grace
				f.create(spec)
			}
			time.Sleep(10 * time.Minute)
			ready := 0
			for pod := range biz.PodID(4) {
				stored, err := f.pods.Get(f.Context(), game, pod)
				require.NoError(f, err)
				if stored.Cordon == biz.Ready {
					ready++
				}
			}
			require.Positive(f, ready, "grace %d s", grace)
		})
	}
}
