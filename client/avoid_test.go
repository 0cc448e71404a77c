package client

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// leastBut makes the podlink give new users to the first pod that is not avoided, as if it had the lowest load for ever.
func leastBut(f *fakePodlink, pods int32) {
	f.choose = func(avoid []int32) int32 {
		for id := range pods {
			if !slices.Contains(avoid, id) {
				return id
			}
		}
		return 0
	}
}

// TestUnreachablePodAttractsNobody: a pod that reports and that nobody can reach has the lowest load, and would get every new user.
func TestUnreachablePodAttractsNobody(t *testing.T) {
	inService(t, RouterOptions{}, 3, func(t *testing.T, f *fakePodlink, s *fakeService) {
		leastBut(f, 3)
		f.set("warm", 1, -1)
		_, err := s.within("warm")
		require.NoError(t, err)
		s.gone(0)
		for i, uid := range users(1000) {
			begun := time.Now()
			pod, err := s.within(uid)
			require.NoError(t, err, uid)
			require.Equal(t, "1", pod)
			if i > 0 && time.Since(begun) > 0 {
				require.Less(t, time.Since(begun), DefaultRetryTimeout)
			}
			if i%100 == 0 { // Its pod answers.
				_, err := s.within("warm")
				require.NoError(t, err)
				time.Sleep(time.Second)
			}
		}
		require.EqualValues(t, 1, f.links["u999"].GetPodId())

		s.back(t, 0) // It gets new users again.
		time.Sleep(reachedWindow)
		pod, err := s.within("later")
		require.NoError(t, err)
		require.Equal(t, "0", pod)
	})
}

// TestWhoIsMoved: podlink is asked to choose another pod for the user of a temporary link alone, and only if the fault is not likely
// to be this caller's.
func TestWhoIsMoved(t *testing.T) {
	for name, row := range map[string]struct {
		pods   int32
		ttl    int32
		reach  bool          // another pod, before
		before time.Duration // how long before
		also   []int32       // pods that are unreachable, too
		moved  bool
	}{
		"a temporary link":            {pods: 3, ttl: 60, reach: true, moved: true},
		"two pods":                    {pods: 2, ttl: 60, reach: true, moved: true},
		"a session":                   {pods: 3, ttl: -1, reach: true},
		"no other pod was reached":    {pods: 3, ttl: 60},
		"that was too long ago":       {pods: 3, ttl: 60, reach: true, before: reachedWindow},
		"it was just in time":         {pods: 3, ttl: 60, reach: true, before: reachedWindow - time.Second, moved: true},
		"the only pod":                {pods: 1, ttl: 60},
		"half of the pods":            {pods: 4, ttl: 60, reach: true, also: []int32{2}, moved: true},
		"more than half of the pods":  {pods: 4, ttl: 60, reach: true, also: []int32{2, 3}, moved: false},
		"more than half, of six":      {pods: 6, ttl: 60, reach: true, also: []int32{2, 3}, moved: true},
		"more than half, five of six": {pods: 6, ttl: 60, reach: true, also: []int32{2, 3, 4}, moved: false},
	} {
		t.Run(name, func(t *testing.T) {
			inService(t, RouterOptions{}, row.pods, func(t *testing.T, f *fakePodlink, s *fakeService) {
				leastBut(f, row.pods)
				f.set("other", row.pods-1, -1)
				f.set("u", 0, row.ttl)
				s.filter(t.Context(), s.nodes)
				if row.reach {
					_, err := s.within("other")
					require.NoError(t, err)
				}
				time.Sleep(row.before)
				for _, id := range row.also { // They have been unreachable for longer.
					s.gone(id)
					f.set("also", id, -1)
					s.router.links.invalidate("also")
					_, err := s.within("also")
					require.ErrorIs(t, err, ErrPodUnreachable)
				}
				s.gone(0)
				_, err := s.within("u")
				if row.moved {
					require.NoError(t, err)
					require.NotZero(t, f.links["u"].GetPodId())
					return
				}
				require.ErrorIs(t, err, ErrPodUnreachable)
				require.Zero(t, f.links["u"].GetPodId())
				for _, item := range f.asked {
					require.Zero(t, item.GetAvoidEpoch())
				}
			})
		})
	}
}

// TestMovedOncePerLinkTTL: whom podlink has moved for this router is not moved again in that time.
func TestMovedOncePerLinkTTL(t *testing.T) {
	inService(t, RouterOptions{}, 4, func(t *testing.T, f *fakePodlink, s *fakeService) {
		leastBut(f, 4)
		f.set("other", 3, -1)
		f.set("u", 0, 60)
		reach := func() {
			_, err := s.within("other")
			require.NoError(t, err)
		}
		reach()
		s.gone(0)
		pod, err := s.within("u")
		require.NoError(t, err)
		require.Equal(t, "1", pod)
		avoids := func() (n int) {
			for _, item := range f.asked {
				if item.GetAvoidEpoch() != 0 {
					n++
				}
			}
			return n
		}
		require.Equal(t, 1, avoids())
		s.gone(1)
		reach()
		_, err = s.within("u")
		require.ErrorIs(t, err, ErrPodUnreachable)
		require.Equal(t, 1, avoids())
		for range 11 {
			time.Sleep(5 * time.Second)
			reach()
		}
		_, _ = s.within("u")
		time.Sleep(5 * time.Second)
		reach()
		f.set("u", 1, 60)
		s.back(t, 0)
		pod, err = s.within("u")
		require.NoError(t, err)
		require.Equal(t, "0", pod)
		require.Equal(t, 2, avoids())
	})
}

// TestConnectingIsNotUnreachable: a pod to which the connection comes up within a moment loses none of its users.
func TestConnectingIsNotUnreachable(t *testing.T) {
	inService(t, RouterOptions{}, 3, func(t *testing.T, f *fakePodlink, s *fakeService) {
		f.set("other", 1, -1)
		_, err := s.within("other")
		require.NoError(t, err)
		s.gone(0)
		time.AfterFunc(avoidAfter/2, func() { s.back(t, 0) })
		link := f.set("u", 0, 60)
		pod, err := s.within("u")
		require.NoError(t, err)
		require.Equal(t, "0", pod)
		require.Equal(t, link.GetEpoch(), f.links["u"].GetEpoch())
		for _, item := range f.asked {
			require.Zero(t, item.GetAvoidEpoch())
		}
	})
}

// TestAvoidListIsBounded: podlink takes 16 pods to avoid.
func TestAvoidListIsBounded(t *testing.T) {
	table, now := newPodTable(), time.Now()
	var found []string
	for id := range 100 {
		found = append(found, fmt.Sprint(id))
	}
	records := table.discovered(found)
	for id := range 40 {
		table.unreached(fmt.Sprint(id), now)
	}
	records[99].answered(now)
	require.Empty(t, table.unreachable(now, avoidAfter))
	later := now.Add(avoidAfter)
	require.Len(t, table.unreachable(later, avoidAfter), maxAvoided)
	records[0].answered(later.Add(time.Second))
	require.NotContains(t, table.unreachable(later, avoidAfter), int32(0))
	require.Empty(t, table.unreachable(now.Add(reachedWindow), avoidAfter))
	table.unreached("no number", now)
	require.Nil(t, table.record("007"))
}
