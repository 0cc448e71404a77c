package client_test

import (
	"context"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	v1 "podlink/api/podlink/v1"
	"podlink/test/kit/inproc"
	"podlink/test/kit/sim"
)

// strike lets a fault happen when its time has come, and ends it.
func (s *simulation) strike(f sim.Fault, random *rand.Rand) {
	time.Sleep(f.At)
	s.logf("FAULT %s", f)
	if f.Kind.Everywhere() {
		defer s.check.Outage()()
	}
	switch f.Kind {
	case sim.PodlinkKilled:
		s.everyPodlink((*inproc.Server).Kill)
		time.Sleep(f.Lasts)
		s.everyPodlink((*inproc.Server).Start)
	case sim.PodlinkFrozen:
		s.everyPodlink((*inproc.Server).Freeze)
		time.Sleep(f.Lasts)
		s.everyPodlink((*inproc.Server).Unfreeze)
	case sim.PodlinkFlapping:
		s.flap(f, random)
	case sim.OnePodlinkAway:
		one := s.podlinks[random.IntN(len(s.podlinks))]
		one.Kill()
		time.Sleep(f.Lasts)
		one.Start()
	case sim.RepliesLost:
		draw := upTo(random, 5)
		s.everyPodlink(func(p *inproc.Server) { p.DropReplies(func(string) bool { return draw() == 0 }) })
		time.Sleep(f.Lasts)
		s.everyPodlink(func(p *inproc.Server) { p.DropReplies(nil) })
	case sim.PodsCut:
		s.cutAll(true)
		time.Sleep(f.Lasts)
		s.cutAll(false)
	case sim.AnswersSlow:
		draw := upTo(random, 300*time.Millisecond)
		s.everyPodlink(func(p *inproc.Server) { p.SetLatency(draw) })
		s.store.SetLatency(func() time.Duration { return draw() / 15 })
		time.Sleep(f.Lasts)
		s.everyPodlink(func(p *inproc.Server) { p.SetLatency(nil) })
		s.store.SetLatency(nil)
	default:
		s.strikeStore(f, random)
		s.strikePod(f)
		s.strikeUsers(f, random)
	}
	s.logf("over  %s", f)
}

// cutAll cuts all processes off from podlink, also those that start meanwhile.
func (s *simulation) cutAll(cut bool) {
	s.mu.Lock()
	s.allCut = cut
	processes := slices.Clone(s.processes)
	s.mu.Unlock()
	for _, p := range processes {
		if cut {
			p.cut(+1)
		} else {
			p.cut(-1)
		}
	}
}

// upTo returns a function that draws durations. Several servers may call it.
func upTo(random *rand.Rand, most time.Duration) func() time.Duration {
	var mu sync.Mutex
	return func() time.Duration {
		mu.Lock()
		defer mu.Unlock()
		return time.Duration(random.Int64N(int64(most)))
	}
}

func (s *simulation) everyPodlink(do func(*inproc.Server)) {
	for _, p := range s.podlinks {
		do(p)
	}
}

// flap kills podlink again and again. Each return lasts long enough for the next try of every pod to report.
func (s *simulation) flap(f sim.Fault, random *rand.Rand) {
	back := 3 * min(time.Second, s.o.ttl/6) / 2
	for left := f.Lasts; left > 0; {
		away := min(left, s.o.ttl/4+time.Duration(random.Int64N(int64(s.o.ttl))))
		s.everyPodlink((*inproc.Server).Kill)
		time.Sleep(away)
		s.everyPodlink((*inproc.Server).Start)
		if left -= away; left > 0 {
			time.Sleep(back)
			left -= back
		}
	}
}

func (s *simulation) strikeStore(f sim.Fault, random *rand.Rand) {
	switch f.Kind {
	case sim.StoreKilled:
		s.store.Kill()
		time.Sleep(f.Lasts)
		s.store.Restart()
	case sim.StoreFrozen:
		s.store.Freeze()
		time.Sleep(f.Lasts)
		s.store.Unfreeze()
	case sim.StoreFlushed:
		s.check.LostData()
		s.store.Flush()
	case sim.StoreFailedOver:
		s.check.LostData()
		s.store.FailOver(time.Duration(random.Int64N(int64(500 * time.Millisecond))))
	default:
	}
}

func (s *simulation) strikePod(f sim.Fault) {
	s.mu.Lock()
	p := s.running[f.Pod]
	s.mu.Unlock()
	next := func() {
		fresh := s.startProcess(f.Pod)
		s.mu.Lock()
		defer s.mu.Unlock()
		s.running[f.Pod] = fresh
	}
	switch f.Kind {
	case sim.PodKilled:
		defer s.check.Impair(f.Pod)()
		p.kill()
		time.Sleep(f.Lasts)
		next()
	case sim.PodFrozen:
		defer s.check.Impair(f.Pod)()
		p.freeze()
		time.Sleep(f.Lasts)
		p.unfreeze()
	case sim.PodDoubled:
		defer s.check.Impair(f.Pod)()
		next()
		time.Sleep(f.Lasts)
		p.kill()
	case sim.PodCut:
		defer s.check.Impair(f.Pod)()
		p.cut(+1)
		time.Sleep(f.Lasts)
		p.cut(-1)
	case sim.PodDrained:
		defer s.check.Impair(f.Pod)()
		p.stop()
		time.Sleep(f.Lasts)
		next()
	default:
	}
}

func (s *simulation) strikeUsers(f sim.Fault, random *rand.Rand) {
	switch f.Kind {
	case sim.UserCorrupt:
		uid := sim.UID(random.IntN(s.o.users))
		s.store.Corrupt(sim.Namespace, uid)
		time.Sleep(f.Lasts)
		s.store.Repair(sim.Namespace, uid)
		s.check.MovedByHand(uid) // What the store has lost meanwhile was not restored: whoever comes first has the user now.
	case sim.UsersMoved:
		operator := v1.NewLinkServiceClient(inproc.Dial(simTry, s.podlinks...))
		for range max(1, s.o.users/10) {
			uid := sim.UID(random.IntN(s.o.users))
			from := int32(s.store.Link(simKey(uid)).Pod)
			s.check.MovedByHand(uid)
			_, err := operator.SetLinkedPod(context.Background(), &v1.SetLinkedPodRequest{
				Namespace: sim.Namespace, Uid: uid, Service: sim.ServiceName, PodId: proto.Int32((from + 1 + random.Int32N(simPods-1)) % simPods),
				PersistSeconds: proto.Int32(60),
			})
			if err != nil {
				s.logf("moving %s by hand: %v", uid, err)
			}
		}
	case sim.CallerCut:
		caller := s.callers[random.IntN(len(s.callers))]
		caller.conn.Cut()
		time.Sleep(f.Lasts)
		caller.conn.Mend()
	default:
	}
}
