package watcher

import (
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/types/known/timestamppb"

	v1 "podlink/api/podlink/v1"
)

const testRoom = "room"

// change returns a change of the room: the link is persistent, or lasts for 30 s.
func change(kind v1.LinkChange_Kind, pod int32, epoch int64) *v1.LinkChange {
	link := &v1.Link{Uid: testRoom, PodId: pod, Epoch: epoch, Persistent: kind != v1.LinkChange_EXPIRING, TtlSeconds: 30}
	return &v1.LinkChange{Kind: kind, Link: link, Time: timestamppb.Now()}
}

// TestApply: a watcher knows the latest link whatever comes twice or late, and reads it where changes don't say enough.
func TestApply(t *testing.T) {
	linked, moved := change(v1.LinkChange_LINKED, 0, 5), change(v1.LinkChange_MOVED, 1, 6)
	persisted, expiring := change(v1.LinkChange_PERSISTED, 0, 5), change(v1.LinkChange_EXPIRING, 0, 5)
	removed := change(v1.LinkChange_REMOVED, -1, 5)
	for name, row := range map[string]struct {
		changes []*v1.LinkChange
		pod     int32 // -1: there is no link
		epoch   int64
		unread  bool
	}{
		"linked":                      {[]*v1.LinkChange{linked}, 0, 5, false},
		"twice":                       {[]*v1.LinkChange{linked, linked}, 0, 5, false},
		"moved":                       {[]*v1.LinkChange{linked, moved}, 1, 6, false},
		"moved, heard of late":        {[]*v1.LinkChange{moved, linked}, 1, 6, false},
		"removed":                     {[]*v1.LinkChange{linked, removed}, -1, 5, false},
		"removed is last":             {[]*v1.LinkChange{removed, linked}, -1, 5, false},
		"removed before it was moved": {[]*v1.LinkChange{moved, removed}, 1, 6, false},
		"made again":                  {[]*v1.LinkChange{linked, removed, moved}, 1, 6, false},
		"expires, or not":             {[]*v1.LinkChange{persisted, expiring}, 0, 5, true},
		"persists, or not":            {[]*v1.LinkChange{expiring, persisted}, 0, 5, true},
		"expires at another time":     {[]*v1.LinkChange{expiring, expiring}, 0, 5, true},
		"uncertain":                   {[]*v1.LinkChange{linked, change(v1.LinkChange_UNCERTAIN, 1, 0)}, 0, 5, true},
		"uncertain, not known before": {[]*v1.LinkChange{change(v1.LinkChange_UNCERTAIN, 1, 0)}, -1, 0, true},
	} {
		t.Run(name, func(t *testing.T) {
			v := newView()
			v.take(&v1.WatchLinksReply{Changes: row.changes})
			link, exists := v.current()[testRoom]
			require.Equal(t, row.pod >= 0, exists)
			if exists {
				require.Equal(t, row.pod, link.Pod)
				require.Equal(t, row.epoch, link.Epoch)
			}
			require.Equal(t, row.unread, v.unread[testRoom])
			require.Equal(t, len(row.changes), v.changes)
		})
	}
}

// TestExpiry: a temporary link ends without a change.
func TestExpiry(t *testing.T) {
	v := newView()
	over := change(v1.LinkChange_EXPIRING, 0, 5)
	over.Time = timestamppb.New(time.Now().Add(-time.Minute))
	v.take(&v1.WatchLinksReply{Changes: []*v1.LinkChange{over}})
	require.Empty(t, v.current())
}

// TestRead: what was read counts, also after the store has lost data, unless a change has come meanwhile that may be later.
func TestRead(t *testing.T) {
	linked := change(v1.LinkChange_LINKED, 0, 5)
	moved, removed := change(v1.LinkChange_MOVED, 1, 6), change(v1.LinkChange_REMOVED, -1, 5)
	none := Link{Pod: -1}
	for name, row := range map[string]struct {
		before, meanwhile []*v1.LinkChange
		read              Link
		want              Link
		again             bool
	}{
		"new":                {nil, nil, Link{Pod: 2, Epoch: 3}, Link{Pod: 2, Epoch: 3}, false},
		"later":              {[]*v1.LinkChange{linked}, nil, Link{Pod: 2, Epoch: 9}, Link{Pod: 2, Epoch: 9}, false},
		"lost by the store":  {[]*v1.LinkChange{moved}, nil, Link{Pod: 0, Epoch: 5}, Link{Pod: 0, Epoch: 5}, false},
		"a removal was lost": {[]*v1.LinkChange{linked, removed}, nil, Link{Pod: 0, Epoch: 5}, Link{Pod: 0, Epoch: 5}, false},
		"gone":               {[]*v1.LinkChange{linked}, nil, none, Link{Pod: -1, Epoch: 5}, false},
		"moved meanwhile, and read before": {
			[]*v1.LinkChange{linked}, []*v1.LinkChange{moved}, Link{Pod: 0, Epoch: 5, Persistent: true},
			linkOf(moved.GetLink(), moved.GetTime().AsTime()), true,
		},
		"moved meanwhile, and read after": {
			[]*v1.LinkChange{linked}, []*v1.LinkChange{moved}, Link{Pod: 1, Epoch: 6, Persistent: true},
			linkOf(moved.GetLink(), moved.GetTime().AsTime()), false,
		},
		"made meanwhile, and read before": {
			nil, []*v1.LinkChange{linked}, none, linkOf(linked.GetLink(), linked.GetTime().AsTime()), true,
		},
	} {
		t.Run(name, func(t *testing.T) {
			v := newView()
			v.take(&v1.WatchLinksReply{Changes: row.before})
			v.readAll()
			before := v.toRead(most)
			v.take(&v1.WatchLinksReply{Changes: row.meanwhile})
			v.read(testRoom, row.read, before[testRoom])
			require.Equal(t, row.want, v.all()[testRoom])
			require.Equal(t, row.again, v.unread[testRoom])
		})
	}
}

// TestToRead: no more are read at once than a batch may have, and what could not be read is read later.
func TestToRead(t *testing.T) {
	v := newView()
	for _, room := range []string{"a", "b", "c"} {
		v.read(room, Link{Epoch: 1}, Link{})
	}
	v.readAll()
	first := v.toRead(2)
	require.Len(t, first, 2)
	rest := v.toRead(2)
	require.Len(t, rest, 1)
	require.Empty(t, v.toRead(2))
	v.readLater(rest)
	require.Equal(t, rest, v.toRead(2))
}

// TestDifferences: a link that is known otherwise, not at all, or not listed.
func TestDifferences(t *testing.T) {
	w := New(nil)
	listed := map[string]Link{}
	for i, room := range []string{"same", "epoch", "pod", "persistent", "extra"} {
		w.view.read(room, Link{Pod: 1, Epoch: int64(i), Persistent: true}, Link{})
		listed[room] = Link{Pod: 1, Epoch: int64(i), Persistent: true}
	}
	require.Empty(t, w.Differences(listed))
	delete(listed, "extra")
	listed["epoch"], listed["pod"] = Link{Pod: 1, Epoch: 9, Persistent: true}, Link{Pod: 2, Epoch: 2, Persistent: true}
	listed["persistent"], listed["missing"] = Link{Pod: 1, Epoch: 3}, Link{Pod: 1, Epoch: 7, Persistent: true}
	want := []string{"epoch", "extra", "missing", "persistent", "pod"}
	require.True(t, slices.IsSorted(want))
	require.Equal(t, want, w.Differences(listed))
}

// TestTold: what a change has said, not what was read.
func TestTold(t *testing.T) {
	w := New(nil)
	w.view.take(&v1.WatchLinksReply{Changes: []*v1.LinkChange{change(v1.LinkChange_MOVED, 1, 6), change(v1.LinkChange_REMOVED, -1, 6)}})
	w.view.read("read", Link{Pod: 1, Epoch: 6}, Link{})
	require.True(t, w.Told(testRoom, 6, 1))
	require.False(t, w.Told(testRoom, 6, 0))
	require.False(t, w.Told(testRoom, 5, 1))
	require.False(t, w.Told("read", 6, 1))
}
