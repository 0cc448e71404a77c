package biz

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// scripted is a LinkRepo with one link, whose SetIfEpoch answers as the test says, and the steps of the pods.
type scripted struct {
	LinkRepo
	repo  *fakePods
	link  Link
	moves []MoveTerms

	reservations []Reservation // the last one repeats
	move         func(pod PodID, move MoveTerms) (LinkChange, error)
	released     []Reservation
	releaseErr   error // of the context of the last Release
	gets         int
}

func (s *scripted) Get(context.Context, LinkKey) (Link, error) { return s.link, nil }

func (s *scripted) SetIfEpoch(_ context.Context, _ LinkKey, pod PodID, _ TTL, move MoveTerms) (LinkChange, error) {
	s.moves = append(s.moves, move)
	if s.move != nil {
		return s.move(pod, move)
	}
	return LinkChange{Applied: true, Previous: s.link.Pod, Link: Link{Key: s.link.Key, Pod: pod, TTL: Forever, Epoch: 8}}, nil
}

// scriptedPods are the steps of the pods of a scripted store.
type scriptedPods struct {
	*fakePods
	s *scripted
}

func (p scriptedPods) Reserve(_ context.Context, _ ServiceKey, request ReserveRequest) (Reservation, error) {
	p.reserved = append(p.reserved, request)
	answer := p.s.reservations[0]
	if len(p.s.reservations) > 1 {
		p.s.reservations = p.s.reservations[1:]
	}
	return answer, nil
}

func (p scriptedPods) Release(ctx context.Context, _ ServiceKey, reservation Reservation) error {
	p.s.released = append(p.s.released, reservation)
	p.s.releaseErr = ctx.Err()
	return nil
}

func (p scriptedPods) Get(_ context.Context, _ ServiceKey, id PodID) (Pod, error) {
	p.s.gets++
	p.mu.Lock()
	defer p.mu.Unlock()
	pod, ok := p.pods[id]
	if !ok {
		return Pod{}, ErrPodNotFound
	}
	return pod, p.err
}

var alice = LinkKey{"game", "alice", "room"}

// withScript runs the test with a use-case on a scripted store, with the pods of withViews. The link is to pod 0 with epoch 7.
func withScript(t *testing.T, ttl TTL, test func(t *testing.T, links *LinkUsecase, s *scripted)) {
	t.Helper()
	withViews(t, func(t *testing.T, views *PodViews, repo *fakePods) {
		s := &scripted{repo: repo, link: Link{Key: alice, Pod: 0, TTL: ttl, Epoch: 7}}
		if ttl == Gone {
			s.link = NoLink(alice)
		}
		s.reservations = []Reservation{{Outcome: Reserved, Pod: 1, HeartbeatMs: 5}}
		views.PodRepo = scriptedPods{repo, s}
		test(t, NewLinkUsecase(s, views, Limits{}, NopObserver{}), s)
	})
}

func known(pod PodID, epoch Epoch) *NewKnown { return &NewKnown{&pod, epoch} }

// TestOnlyALinkThatTheCallerCouldNotUseIsLeft: a temporary one with its epoch to a pod to avoid.
func TestOnlyALinkThatTheCallerCouldNotUseIsLeft(t *testing.T) {
	avoid := func(epoch Epoch, pods ...PodID) ComputeRequest {
		return ComputeRequest{TTL: Forever, Avoid: pods, AvoidEpoch: epoch}
	}
	for name, row := range map[string]struct {
		ttl     TTL
		request ComputeRequest
		leaves  bool
	}{
		"a temporary link":             {60, avoid(7, 3, 0), true},
		"a persistent link":            {Forever, avoid(7, 0), false},
		"another epoch":                {60, avoid(6, 0), false},
		"a later epoch":                {60, avoid(8, 0), false},
		"another pod":                  {60, avoid(7, 1, 2), false},
		"no epoch":                     {60, avoid(0, 0), false},
		"nothing to avoid":             {60, avoid(7), false},
		"no link, with the epoch of 0": {Gone, avoid(0, 0), false},
	} {
		t.Run(name, func(t *testing.T) {
			withScript(t, row.ttl, func(t *testing.T, links *LinkUsecase, s *scripted) {
				computed, err := links.Compute(t.Context(), alice, row.request)
				require.NoError(t, err)
				switch {
				case row.leaves:
					require.Equal(t, Relinked, computed.Outcome)
					require.Equal(t, []ReserveRequest{{Linked: 0, Leave: true, Avoid: row.request.Avoid}}, s.repo.reserved)
					require.Equal(t, []MoveTerms{{Epoch: 7, TemporaryOnly: true}}, s.moves)
				case row.ttl == Gone:
					require.Equal(t, Created, computed.Outcome)
					require.Equal(t, []ReserveRequest{{Linked: NoPod, Avoid: row.request.Avoid}}, s.repo.reserved)
				default:
					require.Equal(t, Existing, computed.Outcome)
					require.Empty(t, s.repo.reserved, "the link is usable")
				}
			})
		})
	}
}

func TestALinkIsNotLeftWithoutAnotherPod(t *testing.T) {
	withScript(t, 60, func(t *testing.T, links *LinkUsecase, s *scripted) {
		s.reservations = []Reservation{{Outcome: LinkedPodUsable}}
		computed, err := links.Compute(t.Context(), alice, ComputeRequest{TTL: Forever, Avoid: []PodID{0}, AvoidEpoch: 7})
		require.NoError(t, err)
		require.Equal(t, Existing, computed.Outcome)
		require.Empty(t, s.moves)
		require.EqualValues(t, 0, computed.Pod.Pod.Pod)
	})
}

// TestALinkThatBecamePersistentIsNotLeft: a session has started while the link was to be moved, with the same epoch.
func TestALinkThatBecamePersistentIsNotLeft(t *testing.T) {
	withScript(t, 60, func(t *testing.T, links *LinkUsecase, s *scripted) {
		s.reservations = []Reservation{{Outcome: Reserved, Pod: 1, HeartbeatMs: 5}, {Outcome: LinkedPodUsable}}
		s.move = func(_ PodID, move MoveTerms) (LinkChange, error) {
			require.True(t, move.TemporaryOnly)
			return LinkChange{Previous: 0, Link: Link{Key: alice, Pod: 0, TTL: Forever, Epoch: 7}}, nil
		}
		computed, err := links.Compute(t.Context(), alice, ComputeRequest{TTL: Forever, Avoid: []PodID{0}, AvoidEpoch: 7})
		require.NoError(t, err)
		require.Equal(t, Existing, computed.Outcome)
		require.True(t, computed.Link.Persistent())
		require.Equal(t, []bool{true, false}, []bool{s.repo.reserved[0].Leave, s.repo.reserved[1].Leave})
		require.Len(t, s.released, 1)
	})
}

func TestTheKnownLinkIsPutBack(t *testing.T) {
	for name, heartbeatMs := range map[string]int64{"its pod has reported": 5, "its pod has not reported": 0} {
		t.Run(name, func(t *testing.T) {
			withScript(t, Gone, func(t *testing.T, links *LinkUsecase, s *scripted) {
				s.reservations = []Reservation{{Outcome: Restored, Pod: 9, HeartbeatMs: heartbeatMs}}
				request := ComputeRequest{TTL: Forever, Known: known(9, 41), Selector: map[string]string{"zone": "a"}}
				computed, err := links.Compute(t.Context(), alice, request)
				require.NoError(t, err)
				require.Equal(t, Created, computed.Outcome)
				require.EqualValues(t, 9, computed.Link.Pod)
				require.Equal(t, []MoveTerms{{Above: 41}}, s.moves)
				require.Equal(t, []ReserveRequest{
					{Linked: NoPod, Known: &KnownLink{9, 41}, Selector: request.Selector},
				}, s.repo.reserved)
				require.Nil(t, computed.Pod)

				s.move = func(PodID, MoveTerms) (LinkChange, error) {
					return LinkChange{}, &InvalidArgumentError{"above_epoch", "is too far ahead"}
				}
				_, err = links.Compute(t.Context(), alice, request)
				require.Equal(t, &InvalidArgumentError{"known.epoch", "is too far ahead"}, err, "the field of this call")
				if heartbeatMs == 0 {
					require.Empty(t, s.released, "nothing was counted")
				} else {
					require.Equal(t, s.reservations, s.released)
				}
			})
		})
	}
}

func TestTheKnownLinkIsIgnored(t *testing.T) {
	withScript(t, Forever, func(t *testing.T, links *LinkUsecase, s *scripted) {
		s.repo.put(podOf(0, Shutdown))
		_, err := links.Compute(t.Context(), alice, ComputeRequest{TTL: Forever, Known: known(9, 41)})
		require.NoError(t, err)
		require.Equal(t, []ReserveRequest{{Linked: 0}}, s.repo.reserved, "there is a link")
		require.Equal(t, []MoveTerms{{Epoch: 7}}, s.moves)
	})
	withScript(t, Gone, func(t *testing.T, links *LinkUsecase, s *scripted) {
		_, err := links.Compute(t.Context(), alice, ComputeRequest{TTL: Forever, Known: known(9, 41)})
		require.NoError(t, err)
		require.Equal(t, []MoveTerms{{}}, s.moves, "the store has chosen another pod")
	})
}

func TestAPodWhoseDoubtIsOverIsLeft(t *testing.T) {
	withScript(t, Forever, func(t *testing.T, links *LinkUsecase, s *scripted) {
		s.link.Pod = 5
		s.repo.put(doubtfulPod(5))
		computed, err := links.Compute(t.Context(), alice, ComputeRequest{TTL: Forever})
		require.NoError(t, err)
		require.Equal(t, Existing, computed.Outcome, "in doubt")
		time.Sleep(maxDoubt + 5*time.Second)
		computed, err = links.Compute(t.Context(), alice, ComputeRequest{TTL: Forever})
		require.NoError(t, err)
		require.Equal(t, Relinked, computed.Outcome)
		require.Equal(t, []ReserveRequest{{Linked: 5, DoubtOver: true}}, s.repo.reserved)
		require.False(t, s.moves[0].TemporaryOnly)
	})
}

// TestTheReplyDescribesThePod: from the view, without a call of the store for a standing link.
func TestTheReplyDescribesThePod(t *testing.T) {
	compute := func(t *testing.T, links *LinkUsecase) *SharedPod {
		computed, err := links.Compute(t.Context(), alice, ComputeRequest{TTL: Forever})
		require.NoError(t, err)
		return computed.Pod
	}
	withScript(t, Forever, func(t *testing.T, links *LinkUsecase, s *scripted) {
		require.EqualValues(t, 0, compute(t, links).Pod.Pod)
		require.Same(t, compute(t, links), compute(t, links), "the view is not copied")
		require.EqualValues(t, 1, s.repo.reads.Load())
		require.Empty(t, s.repo.reserved)
	})
	withScript(t, Gone, func(t *testing.T, links *LinkUsecase, s *scripted) {
		require.EqualValues(t, 1, compute(t, links).Pod.Pod)
		require.EqualValues(t, 1, compute(t, links).Pod.Pod)
		require.EqualValues(t, 1, s.repo.reads.Load(), "new links share a read")
		require.Zero(t, s.gets)

		s.reservations = []Reservation{{Outcome: Reserved, Pod: 8, HeartbeatMs: 5}}
		s.repo.put(podOf(8, Ready))
		require.EqualValues(t, 8, compute(t, links).Pod.Pod, "it has reported since")
		require.Equal(t, 1, s.gets)

		s.repo.fail(ErrStoreUnavailable)
		time.Sleep(maxViewAge)
		require.Nil(t, compute(t, links), "the link was made")
	})
}

// TestAReservationIsReleasedForACallerThatHasLeft: it would count until the next report.
func TestAReservationIsReleasedForACallerThatHasLeft(t *testing.T) {
	withScript(t, Gone, func(t *testing.T, links *LinkUsecase, s *scripted) {
		ctx, cancel := context.WithCancel(t.Context())
		s.move = func(PodID, MoveTerms) (LinkChange, error) {
			cancel()
			return LinkChange{}, ErrCanceled
		}
		_, err := links.Compute(ctx, alice, ComputeRequest{TTL: Forever})
		require.ErrorIs(t, err, ErrCanceled)
		require.Len(t, s.released, 1)
		require.NoError(t, s.releaseErr)
	})
}
