package jobs_test

import (
	"context"
	"testing"
	"time"

	"podlink/internal/biz"
	"podlink/internal/jobs"

	"github.com/stretchr/testify/require"
)

// heldLinks are links of a process that is stopped, as by SIGSTOP, between the read and the move of a page.
type heldLinks struct {
	biz.LinkRepo

	hold func()
}

func (l heldLinks) BatchSet(ctx context.Context, key biz.ServiceKey, items []biz.SetItem) []biz.ChangeResult {
	l.hold()
	return l.LinkRepo.BatchSet(ctx, key, items)
}

// TestAProcessThatWakesUpMovesNobody: its lease has ended, the job has failed elsewhere, and its pod is wanted back.
func TestAProcessThatWakesUpMovesNobody(t *testing.T) {
	inBubble(t, func(f *fleet) {
		f.link(0, 1000, 1, biz.Forever, biz.SetTerms{})
		stopped := make(chan struct{})
		var p *process
		pages := 0
		p = f.start(options{rate: 100, stores: func(s *jobs.Stores) {
			s.Moves = biz.NewLinkUsecase(heldLinks{f.links, func() {
				if pages++; pages == 30 {
					p.freeze()
					close(stopped)
					time.Sleep(time.Minute)
				}
			}}, s.Pods, biz.Limits{MaxBatch: 1000}, biz.NopObserver{})
		}})
		key := f.create(relocate(1))
		<-stopped
		f.lift()
		moves := f.countMoves()
		f.start(options{})
		require.Equal(f, biz.JobFailed, f.await(key).State)
		time.Sleep(2 * time.Minute)
		p.resume()
		time.Sleep(time.Minute)
		require.Empty(f, moves())
	})
}
