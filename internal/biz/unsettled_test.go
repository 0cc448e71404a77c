package biz

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// uncertain reports whether the pod's index has an uncertain entry.
func (t feedCase) uncertain(pod PodID, uid string) bool {
	_, found := t.store.entry(pod, "?"+uid)
	return found
}

// bindLate links the uid so much later, as a mutation does whose reply was lost.
func (t feedCase) bindLate(uid string, pod PodID, after time.Duration) {
	time.AfterFunc(after, func() {
		_, _ = t.links.bind(room.link(uid), pod, Forever, func(Link) bool { return false })
	})
}

// TestUnknownOutcomesAreSettled: two answered reads, a second apart, find out what there is.
func TestUnknownOutcomesAreSettled(t *testing.T) {
	for name, row := range map[string]struct {
		before PodID         // NoPod: there is no link
		asked  []PodID       // by mutations whose replies were lost
		done   int           // index of the one that was executed; -1: none
		late   time.Duration // after the last
	}{
		"nothing was done":                 {NoPod, []PodID{2}, -1, 0},
		"a link was made":                  {NoPod, []PodID{2}, 0, 0},
		"a link was made a moment later":   {NoPod, []PodID{2}, 0, 900 * time.Millisecond},
		"the link was not moved":           {1, []PodID{2}, -1, 0},
		"the link was moved":               {1, []PodID{2}, 0, 0},
		"two, and the first was done":      {1, []PodID{2, 3}, 0, 0},
		"two, and the last was done":       {1, []PodID{2, 3}, 1, 500 * time.Millisecond},
		"the link has the pod, so or so":   {2, []PodID{2}, -1, 0},
		"twice the same pod, none is done": {1, []PodID{2, 2}, -1, 0},
	} {
		t.Run(name, func(t *testing.T) {
			withFeed(t, FeedOptions{Index: true}, func(t feedCase) {
				if row.before != NoPod {
					_, err := NoteChanges(t.links, t.feed).Set(t.Context(), room.link("ann"), row.before, Forever, SetTerms{})
					require.NoError(t, err)
				}
				for i, pod := range row.asked {
					time.Sleep(300 * time.Millisecond)
					if i == row.done {
						t.bindLate("ann", pod, row.late)
					}
					t.note(Uncertain, "ann", pod, 0, NoPod)
				}
				time.Sleep(1600 * time.Millisecond)
				for _, pod := range row.asked {
					require.True(t, t.uncertain(pod, "ann"), "it is not settled yet")
				}
				time.Sleep(1400 * time.Millisecond)
				for pod := range PodID(4) {
					require.False(t, t.uncertain(pod, "ann"))
				}
				if link := t.links.get(room.link("ann")); link.Exists() {
					entry, found := t.store.entry(link.Pod, "ann")
					require.True(t, found)
					require.Equal(t, link.Epoch, entry.Epoch)
				}
				reads := t.links.reads
				time.Sleep(time.Minute)
				require.Equal(t, reads, t.links.reads)
			})
		})
	}
}

// TestSettlingWaitsForTheStore: as long as a link can't be read, its uncertain entry stays.
func TestSettlingWaitsForTheStore(t *testing.T) {
	withFeed(t, FeedOptions{Index: true}, func(t feedCase) {
		t.links.locked(func() { t.links.readErr = ErrDeadlineExceeded })
		t.note(Uncertain, "ann", 2, 0, NoPod)
		time.Sleep(time.Minute)
		require.True(t, t.uncertain(2, "ann"))
		t.links.locked(func() { t.links.readErr = nil })
		t.bindLate("ann", 2, 500*time.Millisecond)
		time.Sleep(3 * time.Second)
		require.False(t, t.uncertain(2, "ann"))
		_, found := t.store.entry(2, "ann")
		require.True(t, found)
	})
}

// TestANewDoubtNeedsItsOwnReads: a mutation of unknown outcome between the two reads begins again.
func TestANewDoubtNeedsItsOwnReads(t *testing.T) {
	withFeed(t, FeedOptions{Index: true}, func(t feedCase) {
		for range 20 {
			t.note(Uncertain, "ann", 2, 0, NoPod)
			time.Sleep(900 * time.Millisecond)
			synctest.Wait()
			require.True(t, t.uncertain(2, "ann"))
		}
		time.Sleep(3 * time.Second)
		require.False(t, t.uncertain(2, "ann"))
	})
}

// TestManyUnknownOutcomes: they are read in batches, those of several services as well; too many give a gap.
func TestManyUnknownOutcomes(t *testing.T) {
	withFeed(t, FeedOptions{Index: true}, func(t feedCase) {
		const all, services = 20_000, 7
		for i := range all {
			key := ServiceKey{"game", fmt.Sprint("room", i%services)}
			link := Link{Key: key.link(fmt.Sprint("user", i)), Pod: 2, TTL: Forever}
			t.feed.Note(key, Change{Kind: Uncertain, Link: link, Previous: NoPod})
		}
		time.Sleep(10 * time.Second)
		require.LessOrEqual(t, t.links.reads, 2*(all/maxPart+2*services))
		for at, index := range t.store.indexes {
			require.Empty(t, index, at)
		}
		require.Empty(t, t.store.declared())

		t.links.locked(func() { t.links.readErr = errStoreAway })
		for i := range maxNoted + 1 {
			t.note(Uncertain, fmt.Sprint("user", i), 2, 0, NoPod)
			if i%1000 == 0 {
				time.Sleep(flushEvery)
			}
		}
		time.Sleep(5 * time.Second)
		require.Equal(t, []GapReason{GapDropped}, t.store.declared())
	})
}
