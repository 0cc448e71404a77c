package sim

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

func TestPlanRepeats(t *testing.T) {
	draw := func(seed uint64) []Fault { return Plan(rand.New(rand.NewPCG(seed, 1)), Kinds, 50, time.Second, 5) }
	require.Equal(t, draw(1), draw(1))
	require.NotEqual(t, draw(1), draw(2))
	seen := make(map[Kind]bool)
	for seed := range uint64(20) {
		for _, f := range draw(seed) {
			seen[f.Kind] = true
			require.LessOrEqual(t, f.At+f.Lasts, End(draw(seed)))
			require.LessOrEqual(t, f.Lasts, 5*time.Second, f.String())
		}
	}
	require.Len(t, seen, len(Kinds))
}

func TestFaultsOfOneThingDoNotOverlap(t *testing.T) {
	for seed := range uint64(20) {
		ends := make(map[string]time.Duration)
		for _, f := range Plan(rand.New(rand.NewPCG(seed, 1)), []Kind{PodlinkKilled, StoreKilled, PodKilled}, 50, time.Second, 2) {
			thing := "everywhere"
			if f.Kind == PodKilled {
				thing = fmt.Sprint(f.Pod)
			}
			require.Greater(t, f.At, ends[thing])
			ends[thing] = f.At + f.Lasts
		}
	}
}

// TestStorage: it refuses what is late, and reports what fencing can't catch.
func TestStorage(t *testing.T) {
	var reports []string
	s := NewStorage(func(format string, args ...any) { reports = append(reports, fmt.Sprintf(format, args...)) })
	value, ok := s.Load("alice", "a", 10)
	require.True(t, ok)
	require.Zero(t, value)
	require.True(t, s.Write("alice", "a", 10, 1))
	value, ok = s.Load("alice", "b", 20)
	require.True(t, ok)
	require.EqualValues(t, 1, value)
	require.False(t, s.Write("alice", "a", 10, 2), "late")
	_, ok = s.Load("alice", "a", 10)
	require.False(t, ok)
	require.Empty(t, reports)

	s.Load("alice", "a", 20)
	require.Len(t, reports, 1)
	require.Contains(t, reports[0], "one epoch, two processes")
	s.Write("alice", "a", 30, 7)
	require.Contains(t, reports[1], "lost update")
	s.Write("alice", "a", 0, 8)
	require.Contains(t, reports[2], "no epoch")
}

func TestExcuses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := Excuses{Window: time.Minute}
		require.False(t, e.Excused(1, "alice"))
		well := e.Impair(1)
		time.Sleep(time.Hour)
		require.True(t, e.Excused(1, "alice"))
		require.False(t, e.Excused(2, "alice"))
		well()
		time.Sleep(time.Minute)
		require.True(t, e.Excused(1, "alice"))
		time.Sleep(time.Second)
		require.False(t, e.Excused(1, "alice"))
		e.MovedByHand("alice")
		require.True(t, e.Excused(2, "alice"))
		require.False(t, e.Excused(2, "bob"))
		e.LostData()
		require.True(t, e.Excused(2, "bob"))
	})
}

// TestMovedSince: a move that an outage holds up may take a session that began at its end.
func TestMovedSince(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var e Excuses
		over := e.Outage()
		e.MovedByHand("alice")
		time.Sleep(time.Minute)
		over()
		began := time.Now().Add(3 * time.Millisecond)
		time.Sleep(time.Minute)
		require.True(t, e.MovedSince("alice", began))
		require.False(t, e.MovedSince("alice", began.Add(2*time.Second)), "of a session that began later")
		require.False(t, e.MovedSince("bob", began))
	})
}

// TestSilenced: a pod that can't ask podlink may believe what it knows until its lease ends, and a moment longer.
func TestSilenced(t *testing.T) {
	const lease, moment = 6 * time.Second, time.Second
	synctest.Test(t, func(t *testing.T) {
		var e Excuses
		require.False(t, e.Silenced(1, lease, moment))
		over := e.Outage()
		require.True(t, e.Silenced(1, lease, moment))
		time.Sleep(lease + moment + time.Millisecond)
		require.False(t, e.Silenced(1, lease, moment), "its lease has ended")
		over()
		require.False(t, e.Silenced(1, lease, moment))

		well := e.Impair(2)
		require.True(t, e.Silenced(2, lease, moment))
		require.False(t, e.Silenced(1, lease, moment), "another pod")
		time.Sleep(time.Second)
		well()
		time.Sleep(moment)
		require.True(t, e.Silenced(2, lease, moment), "it may not have asked again")
		time.Sleep(time.Millisecond)
		require.False(t, e.Silenced(2, lease, moment))
	})
}
