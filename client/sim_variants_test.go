package client_test

import (
	"context"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"

	v1 "podlink/api/podlink/v1"
	"podlink/client"
	"podlink/internal/biz"
	"podlink/test/kit/sim"
)

// simVariant is a known-bad behavior, to prove that the simulator finds it. The zero value is none.
type simVariant struct {
	// change changes a request of a pod to podlink.
	change func(request any)
	// liveness replaces the store's rule.
	liveness func(h biz.Hearing, report biz.Pod, nowMs int64) biz.Liveness
	// guardCacheTTL replaces the guards'.
	guardCacheTTL time.Duration
	// forgets makes routers forget a link about which podlink answers NO_AVAILABLE_POD.
	forgets bool
	// endsAll makes the end of one session of a user end all of the process.
	endsAll bool
}

// simVariants are the rules of before, by what they do wrong. want is the kind of violation that must be found.
var simVariants = map[string]struct {
	variant simVariant
	kinds   []sim.Kind
	plan    []sim.Fault // instead of kinds; its times are in ttl
	want    string
}{
	"a pod is dead as soon as its report has expired": {
		simVariant{liveness: func(_ biz.Hearing, report biz.Pod, nowMs int64) biz.Liveness {
			if report.TTL != biz.Forever && nowMs > report.HeartbeatMs+int64(report.TTL)*1000 {
				return biz.Dead
			}
			return biz.Live
		}},
		[]sim.Kind{sim.PodlinkKilled, sim.StoreKilled}, nil, "moved",
	},
	"a session does not claim its link": {
		simVariant{change: func(request any) {
			switch r := request.(type) {
			case *v1.SetLinkedPodRequest:
				r.Claim, r.AboveEpoch = 0, nil
			case *v1.BatchSetLinkedPodRequest:
				for _, item := range r.GetItems() {
					item.Claim, item.AboveEpoch = 0, nil
				}
			}
		}},
		[]sim.Kind{sim.PodDoubled, sim.PodKilled}, nil, "one epoch, two processes",
	},
	"a lease outlives the ttl": {
		simVariant{change: func(request any) {
			if r, ok := request.(*v1.SetServiceStateRequest); ok {
				seconds := max(1, r.GetTtlSeconds()/3)
				r.TtlSeconds = &seconds
			}
		}},
		[]sim.Kind{sim.PodCut}, nil, "overlap",
	},
	"a guard believes a link for ever": {
		simVariant{guardCacheTTL: 24 * time.Hour}, []sim.Kind{sim.UsersMoved, sim.CallerCut}, nil, "stale",
	},
	"a router forgets a link about which podlink says that no pod is available": {
		simVariant{forgets: true}, nil, flushedWhileCut, "starved",
	},
	"the end of one session ends all of its user": {
		simVariant{endsAll: true}, []sim.Kind{sim.AnswersSlow}, nil, "link gone",
	},
}

// TestSimulationFindsVariants: the simulator finds the rules of before.
func TestSimulationFindsVariants(t *testing.T) {
	if client.RaceEnabled {
		t.Skip("it takes long with the race detector, which has nothing to find in it; make test-sim runs it without")
	}
	t.Parallel()
	for name, v := range simVariants {
		t.Run(name, func(t *testing.T) {
			const seeds = 20
			for seed := range uint64(seeds) {
				ttl := simTTL(seed)
				result := simulate(t, simOptions{
					seed: seed, users: 30, ttl: ttl, guardCacheTTL: simCacheTTL(ttl), kinds: v.kinds, faults: 5, plan: inTTL(v.plan, ttl),
					variant: v.variant,
				})
				t.Logf("seed %d: %s: %s", seed, result.kinds(), result.summary)
				for _, text := range result.violations {
					if strings.HasPrefix(text, v.want) {
						return
					}
				}
			}
			require.Failf(t, "not found", "%d seeds", seeds)
		})
	}
}

// forgetting makes the caller forget the links that podlink's answers make the variant forget.
type forgetting struct {
	grpc.ClientConnInterface

	mu   sync.Mutex
	uids map[string]bool
}

func (f *forgetting) Invoke(ctx context.Context, method string, request, reply any, options ...grpc.CallOption) error {
	err := f.ClientConnInterface.Invoke(ctx, method, request, reply, options...)
	f.mu.Lock()
	defer f.mu.Unlock()
	switch r := request.(type) {
	case *v1.ComputeLinkedPodRequest:
		if v1.IsNoAvailablePod(err) {
			f.uids[r.GetUid()] = true
		}
	case *v1.BatchComputeLinkedPodRequest:
		for i, result := range reply.(*v1.BatchComputeLinkedPodReply).GetResults() {
			if result.GetProblem().GetReason() == v1.ErrorReason_NO_AVAILABLE_POD.String() {
				f.uids[r.GetItems()[i].GetUid()] = true
			}
		}
	}
	return err
}

// take reports whether the link of the user is to be forgotten.
func (f *forgetting) take(uid string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	forget := f.uids[uid]
	delete(f.uids, uid)
	return forget
}

// carrier returns the connection of a pod with the variant's behavior.
func (v simVariant) carrier(conn grpc.ClientConnInterface) grpc.ClientConnInterface {
	if v.change == nil {
		return conn
	}
	return changedConn{conn, v.change}
}

type changedConn struct {
	grpc.ClientConnInterface
	change func(request any)
}

func (c changedConn) Invoke(ctx context.Context, method string, request, reply any, options ...grpc.CallOption) error {
	c.change(request)
	return c.ClientConnInterface.Invoke(ctx, method, request, reply, options...)
}

type starter func(ctx context.Context, uid string) (sim.Session, error)

// starting returns how a process starts sessions with the variant's behavior.
func (v simVariant) starting(start starter) starter {
	if !v.endsAll {
		return start
	}
	var mu sync.Mutex
	users := make(map[string][]sim.Session)
	return func(ctx context.Context, uid string) (sim.Session, error) {
		session, err := start(ctx, uid)
		if err != nil {
			return nil, err
		}
		mu.Lock()
		defer mu.Unlock()
		users[uid] = append(users[uid], session)
		return endsAll{session, func(keep time.Duration) {
			mu.Lock()
			all := users[uid]
			users[uid] = nil
			mu.Unlock()
			for _, one := range all {
				one.End(context.Background(), keep)
			}
		}}, nil
	}
}

type endsAll struct {
	sim.Session

	end func(keep time.Duration)
}

func (s endsAll) End(_ context.Context, keep time.Duration) { s.end(keep) }
