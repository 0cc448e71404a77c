//go:build faults

package faults

import (
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"
)

func TestWritten(t *testing.T) {
	// acked is the answer to a write: which pod's link it has replaced, and its own epoch.
	acked := func(previous int32, epoch int64) call {
		return call{answer: answer{outcome: acknowledged, previous: proto.Int32(previous), link: &link{epoch: epoch}}}
	}
	lost := call{answer: answer{outcome: unknown}}
	not := call{answer: answer{outcome: refused}}
	for _, row := range []struct {
		name   string
		writes []call // the n-th is to pod n, from 1
		stands link
		lost   int
		broken bool
	}{
		{name: "nothing", stands: none},
		{name: "all stood", writes: []call{acked(noPod, 5), acked(1, 6)}, stands: link{2, forever, 6}},
		{name: "the last is gone", writes: []call{acked(noPod, 5), acked(1, 6)}, stands: link{1, forever, 5}, lost: 1},
		{name: "all are gone", writes: []call{acked(noPod, 5), acked(1, 6)}, stands: none, lost: 2},
		{
			name:   "two were gone when the next one came",
			writes: []call{acked(noPod, 5), acked(1, 6), acked(2, 7), acked(1, 8)}, stands: link{4, forever, 8}, lost: 2,
		},
		{
			name:   "all were gone when the next one came",
			writes: []call{acked(noPod, 5), acked(1, 6), acked(noPod, 7)}, stands: link{3, forever, 7}, lost: 2,
		},
		{
			name:   "what is gone counts once",
			writes: []call{acked(noPod, 5), acked(noPod, 6), acked(noPod, 7)}, stands: none, lost: 3,
		},
		{name: "an unknown write stands", writes: []call{acked(noPod, 5), lost}, stands: link{2, forever, 6}},
		{name: "an unknown write never was", writes: []call{acked(noPod, 5), lost}, stands: link{1, forever, 5}},
		{
			name:   "an unknown write stood before the next one",
			writes: []call{acked(noPod, 5), lost, acked(2, 7)}, stands: link{3, forever, 7},
		},
		{
			name:   "an unknown write came late",
			writes: []call{acked(noPod, 5), lost, acked(1, 7)}, stands: link{2, forever, 8},
		},
		{
			name:   "an unknown write stands and a later one is gone",
			writes: []call{acked(noPod, 5), lost, acked(2, 7)}, stands: link{2, forever, 6}, lost: 1,
		},
		{
			name:   "a refused write had no effect",
			writes: []call{acked(noPod, 5), not, acked(1, 6)}, stands: link{3, forever, 6},
		},
		{name: "a refused write stands", writes: []call{acked(noPod, 5), not}, stands: link{2, forever, 6}, broken: true},
		{name: "a refused write stood", writes: []call{not, acked(1, 6)}, stands: link{2, forever, 6}, broken: true},
		{name: "another epoch", writes: []call{acked(noPod, 5)}, stands: link{1, forever, 6}, broken: true},
		{
			name:   "an epoch that does not grow",
			writes: []call{acked(noPod, 5), acked(1, 5)}, stands: link{2, forever, 5}, broken: true,
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
			uid.stands(row.stands)
			require.Equal(t, row.lost, uid.lost())
			require.Equal(t, row.broken, len(uid.broken) > 0, uid.broken)
		})
	}
}
