package jobs_test

import (
	"testing"
	"time"

	"podlink/internal/biz"

	"github.com/stretchr/testify/require"
)

// TestTheRateOfAJob is the job's, or podlink's if that is lower.
func TestTheRateOfAJob(t *testing.T) {
	for name, row := range map[string]struct{ podlink, job, want int }{
		"podlink's":           {200, 0, 200},
		"the job's":           {20_000, 100, 100},
		"never above podlink": {100, 5000, 100},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(f *fleet) {
				f.link(0, 2000, 1, biz.Forever, biz.SetTerms{})
				f.start(options{rate: row.podlink})
				spec := relocate(1)
				spec.Rate = int32(row.job)
				key := f.create(spec)
				time.Sleep(2 * time.Second)
				before := f.counts()[1]
				time.Sleep(4 * time.Second)
				require.InDelta(f, 4*row.want, before-f.counts()[1], float64(row.want)/5)
				require.Equal(f, biz.JobRunning, f.job(key).State)
			})
		})
	}
}

// TestAJobGivesWayToASlowStore: it goes on slower while the latency is over twice that of its first second, and recovers.
func TestAJobGivesWayToASlowStore(t *testing.T) {
	inBubble(t, func(f *fleet) {
		f.link(0, 4000, 1, biz.Forever, biz.SetTerms{})
		f.start(options{rate: 100})
		f.create(relocate(1))
		perSecond := func(seconds int) float64 {
			before := f.counts()[1]
			time.Sleep(time.Duration(seconds) * time.Second)
			return float64(before-f.counts()[1]) / float64(seconds)
		}
		time.Sleep(3 * time.Second)
		require.InDelta(f, 100, perSecond(4), 10)
		f.store.SetLatency(func() time.Duration { return 5 * time.Millisecond })
		time.Sleep(10 * time.Second)
		require.Less(f, perSecond(10), 10.)
		require.Positive(f, perSecond(20), "it does not stop")
		f.store.SetLatency(func() time.Duration { return time.Millisecond })
		time.Sleep(40 * time.Second)
		require.InDelta(f, 100, perSecond(4), 10, "the full rate")
	})
}
