//go:build faults

package faults

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/types/known/timestamppb"

	v1 "podlink/api/podlink/v1"
)

func TestView(t *testing.T) {
	change := func(kind v1.LinkChange_Kind, pod int32, epoch int64, seconds int32, age time.Duration) *v1.LinkChange {
		return &v1.LinkChange{
			Kind: kind, Time: timestamppb.New(time.Now().Add(-age)),
			Link: &v1.Link{Uid: "ann", PodId: pod, Epoch: epoch, TtlSeconds: seconds},
		}
	}
	linked := func(pod int32, epoch int64) *v1.LinkChange {
		return change(v1.LinkChange_LINKED, pod, epoch, forever, 0)
	}
	moved := func(pod int32, epoch int64) *v1.LinkChange {
		return change(v1.LinkChange_MOVED, pod, epoch, forever, 0)
	}
	removed := func(epoch int64) *v1.LinkChange { return change(v1.LinkChange_REMOVED, noPod, epoch, gone, 0) }
	persisted := change(v1.LinkChange_PERSISTED, 1, 5, forever, 0)
	expiring := change(v1.LinkChange_EXPIRING, 1, 5, 60, 0)
	expired := change(v1.LinkChange_EXPIRING, 1, 5, 1, time.Minute)
	uncertain := change(v1.LinkChange_UNCERTAIN, 2, 0, forever, 0)
	nobody := map[string]stored{}
	on := func(pod int32, epoch int64) map[string]stored { return map[string]stored{"ann": {pod, epoch}} }
	for _, row := range []struct {
		name    string
		changes []*v1.LinkChange
		truth   map[string]stored
		unsure  bool
	}{
		{"nothing", nil, nobody, false},
		{"linked", []*v1.LinkChange{linked(1, 5)}, on(1, 5), false},
		{"the greater epoch is the newer", []*v1.LinkChange{moved(2, 6), linked(1, 5)}, on(2, 6), false},
		{"removed", []*v1.LinkChange{linked(1, 5), removed(5)}, nobody, false},
		{"of one epoch removed is last", []*v1.LinkChange{removed(5), linked(1, 5), persisted}, nobody, false},
		{"linked after it was removed", []*v1.LinkChange{removed(5), linked(1, 6)}, on(1, 6), false},
		{"removed before it was linked", []*v1.LinkChange{linked(1, 6), removed(5)}, on(1, 6), false},
		{"a change of the same epoch comes after the first", []*v1.LinkChange{linked(1, 5), expired}, nobody, false},
		{"also if it is heard before it", []*v1.LinkChange{expired, linked(1, 5)}, nobody, false},
		{"a change that comes twice", []*v1.LinkChange{linked(1, 5), expiring, expiring}, on(1, 5), false},
		{"an end makes no change", []*v1.LinkChange{expired}, nobody, false},
		{"persisted and expiring", []*v1.LinkChange{persisted, expiring}, on(1, 5), true},
		{"two ends", []*v1.LinkChange{expired, expiring}, on(1, 5), true},
		{"uncertain", []*v1.LinkChange{linked(1, 5), uncertain}, on(1, 5), true},
	} {
		t.Run(row.name, func(t *testing.T) {
			v := newView()
			v.apply(&v1.WatchLinksReply{Changes: row.changes})
			require.Empty(t, v.differs(row.truth))
			require.Equal(t, row.unsure, len(v.unread()) > 0)
			v.read(&v1.Link{Uid: "ann", PodId: 7, Epoch: 9})
			require.Empty(t, v.differs(on(7, 9)))
			require.Empty(t, v.unread())
		})
	}
	t.Run("a refresh keeps what came after the lists", func(t *testing.T) {
		v := newView()
		v.apply(&v1.WatchLinksReply{Changes: []*v1.LinkChange{linked(1, 5)}})
		v.refresh(nobody, v.position())
		require.Empty(t, v.differs(on(1, 5)), "nothing is old")
		v.apply(&v1.WatchLinksReply{Resync: v1.WatchLinksReply_GAP})
		v.refresh(on(2, 6), v.position()-1)
		require.Empty(t, v.differs(on(2, 6)), "the lists have a greater epoch")
		v.apply(&v1.WatchLinksReply{Resync: v1.WatchLinksReply_GAP, Changes: []*v1.LinkChange{moved(3, 7)}})
		v.refresh(on(2, 6), v.position()-1)
		require.Empty(t, v.differs(on(3, 7)))
		v.apply(&v1.WatchLinksReply{Resync: v1.WatchLinksReply_SLOW})
		v.refresh(nobody, v.position())
		require.Empty(t, v.differs(nobody))
	})
	t.Run("a difference is told", func(t *testing.T) {
		truth := map[string]stored{"ann": {1, 5}, "bob": {2, 5}}
		require.Equal(t, "of 2 links 1 (bob of pod 2) missing, 1 (ann on pod 3 with epoch 6, not 1 with 5) wrong, "+
			"and 1 (cat on pod 1) which do not exist",
			difference(map[string]stored{"ann": {3, 6}, "cat": {1, 5}}, truth))
	})
}
