//go:build faults

package faults

import (
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"
)

func TestWritten(t *testing.T) {
	// acked returns the answer to a write that replaced a link to previous.
	acked := func(previous int32, epoch int64) call {
		return call{answer: answer{outcome: acknowledged, previous: proto.Int32(previous), link: &link{epoch: epoch}}}
	}
	lost := call{answer: answer{outcome: unknown}}
	not := call{answer: answer{outcome: refused}}
	for _, row := range []struct {
		name   string
		writes []call // the n-th is to pod n, from 1
		final  link
		lost   int
		broken bool
	}{
		{name: "nothing", final: none},
		{name: "none lost", writes: []call{acked(noPod, 5), acked(1, 6)}, final: link{2, forever, 6, 0}},
		{name: "the last is lost", writes: []call{acked(noPod, 5), acked(1, 6)}, final: link{1, forever, 5, 0}, lost: 1},
		{name: "all are lost", writes: []call{acked(noPod, 5), acked(1, 6)}, final: none, lost: 2},
		{
			name:   "two were lost before the next one",
			writes: []call{acked(noPod, 5), acked(1, 6), acked(2, 7), acked(1, 8)}, final: link{4, forever, 8, 0}, lost: 2,
		},
		{
			name:   "all were lost before the next one",
			writes: []call{acked(noPod, 5), acked(1, 6), acked(noPod, 7)}, final: link{3, forever, 7, 0}, lost: 2,
		},
		{
			name:   "each lost write counts once",
			writes: []call{acked(noPod, 5), acked(noPod, 6), acked(noPod, 7)}, final: none, lost: 3,
		},
		{name: "an unknown write is current", writes: []call{acked(noPod, 5), lost}, final: link{2, forever, 6, 0}},
		{name: "an unknown write was not executed", writes: []call{acked(noPod, 5), lost}, final: link{1, forever, 5, 0}},
		{
			name:   "an unknown write was current before the next one",
			writes: []call{acked(noPod, 5), lost, acked(2, 7)}, final: link{3, forever, 7, 0},
		},
		{
			name:   "an unknown write was executed late",
			writes: []call{acked(noPod, 5), lost, acked(1, 7)}, final: link{2, forever, 8, 0},
		},
		{
			name:   "an unknown write is current and a later one is lost",
			writes: []call{acked(noPod, 5), lost, acked(2, 7)}, final: link{2, forever, 6, 0}, lost: 1,
		},
		{
			name:   "a refused write had no effect",
			writes: []call{acked(noPod, 5), not, acked(1, 6)}, final: link{3, forever, 6, 0},
		},
		{name: "a refused write is current", writes: []call{acked(noPod, 5), not}, final: link{2, forever, 6, 0}, broken: true},
		{name: "a refused write was current", writes: []call{not, acked(1, 6)}, final: link{2, forever, 6, 0}, broken: true},
		{name: "another epoch", writes: []call{acked(noPod, 5)}, final: link{1, forever, 6, 0}, broken: true},
		{
			name:   "an epoch that does not grow",
			writes: []call{acked(noPod, 5), acked(1, 5)}, final: link{2, forever, 5, 0}, broken: true,
		},
	} {
		t.Run(row.name, func(t *testing.T) {
			w := newWriters(1, 1)
			for _, c := range row.writes {
				c.operation = w.next(0, rand.New(rand.NewPCG(1, 1)))
				if c.link != nil {
					c.link.pod = c.pod
				}
				w.done(c)
			}
			uid := w.uids[0][0]
			uid.isFinal(row.final)
			require.Equal(t, row.lost, uid.lost())
			require.Equal(t, row.broken, len(uid.broken) > 0, uid.broken)
		})
	}
}
