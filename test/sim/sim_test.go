//go:build sim

package sim

import (
	"context"
	"flag"
	"math/rand/v2"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	v1 "podlink/api/podlink/v1"
	"podlink/test/kit/sim"
	"podlink/test/kit/variants"
)

var (
	simTime  = flag.Duration("sim.time", time.Minute, "how long to run seeds; also PODLINK_SIM_TIME")
	simSeed  = flag.Uint64("sim.seed", 0, "run only this seed")
	simUsers = flag.Int("sim.users", 100, "number of users")
)

// kinds are the faults of the plans. A process can't be cut off from podlink here, and no user's data are corrupt.
var kinds = []sim.Kind{
	sim.PodlinkKilled, sim.PodlinkFrozen, sim.PodlinkFlapping, sim.OnePodlinkAway, sim.StoreKilled, sim.StoreFrozen, sim.StoreFlushed,
	sim.PodKilled, sim.PodFrozen, sim.PodDoubled, sim.PodDrained, sim.UsersMoved,
}

// TestProcesses runs seeds for as long as -sim.time says.
func TestProcesses(t *testing.T) {
	limit := *simTime
	if text := os.Getenv("PODLINK_SIM_TIME"); text != "" {
		var err error
		limit, err = time.ParseDuration(text)
		require.NoError(t, err, "PODLINK_SIM_TIME")
	}
	began := time.Now()
	for n := uint64(0); n == 0 || *simSeed == 0 && time.Since(began) < limit; n++ {
		seed := *simSeed
		if seed == 0 {
			seed = uint64(began.UnixNano()) + n
		}
		ok := t.Run("seed", func(t *testing.T) { require.Empty(t, simulate(t, seed, binary, kinds)) })
		if !ok {
			t.Fatalf("repeat the plan: go test -tags sim ./test/sim -sim.seed %d -sim.users %d", seed, *simUsers)
		}
	}
}

// TestProcessesFindVariants: the simulator finds podlinks that break a promise.
func TestProcessesFindVariants(t *testing.T) {
	for name, row := range map[string]struct {
		kinds []sim.Kind
		want  string // how the violation begins
	}{
		variants.Impatient:  {[]sim.Kind{sim.PodlinkKilled, sim.StoreKilled}, "lost:"},
		variants.StaleEpoch: {[]sim.Kind{sim.PodKilled}, "one epoch, two processes:"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			bad := variants.Build(t, name)
			const seeds = 5
			for seed := range uint64(seeds) {
				for _, text := range simulate(t, seed, bad, row.kinds) {
					if strings.Contains(text, row.want) {
						t.Logf("seed %d: %s", seed, text)
						return
					}
				}
			}
			require.Failf(t, "not found", "%d seeds", seeds)
		})
	}
}

// simulate runs the plan of a seed against podlinks of that binary, and returns the promises that were broken.
func simulate(t *testing.T, seed uint64, podlink string, kinds []sim.Kind) []string {
	t.Helper()
	w := newWorld(t, podlink)
	random := func(part uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, part)) }
	time.Sleep(ttl) // The pods report before the first users come.
	var playing, striking sync.WaitGroup
	ctx, stop := context.WithCancel(context.Background())
	for n := range *simUsers {
		playing.Go(func() { w.play(ctx, random(1000+uint64(n)), n) })
	}
	for i, f := range sim.Plan(random(1), kinds, 4, ttl, pods) {
		striking.Go(func() { w.strike(f, random(100+uint64(i))) })
	}
	striking.Wait()
	w.logf("the last fault is over")
	healed := time.Now()
	time.Sleep(2 * ttl)
	stop()
	playing.Wait()
	for n := range *simUsers {
		playing.Go(func() {
			if err := w.callers[n%callers].do(sim.UID(n), sim.Play); err != nil {
				w.violate("not served: %s, %s after the last fault: %v", sim.UID(n), time.Since(healed), err)
			}
		})
	}
	playing.Wait()
	w.logf("seed %d: %s", seed, w.storage)
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.violations
}

func (w *world) play(ctx context.Context, random *rand.Rand, n int) {
	for {
		timer := time.NewTimer(time.Duration(random.Int64N(int64(2 * time.Second))))
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return
		}
		_ = w.callers[random.IntN(callers)].do(sim.UID(n), sim.Action(random, n)) // While something is at fault, calls may fail.
	}
}

// strike lets a fault happen when its time has come, and ends it.
func (w *world) strike(f sim.Fault, random *rand.Rand) {
	time.Sleep(f.At)
	w.logf("FAULT %s", f)
	if f.Kind.Everywhere() {
		defer w.excuses.Outage()()
	}
	switch f.Kind {
	case sim.PodlinkKilled:
		w.podlinkAway(f.Lasts, w.podlinks...)
	case sim.OnePodlinkAway:
		w.podlinkAway(f.Lasts, w.podlinks[random.IntN(len(w.podlinks))])
	case sim.PodlinkFrozen:
		for _, slot := range w.podlinks {
			w.must(slot.process.Freeze())
		}
		time.Sleep(f.Lasts)
		for _, slot := range w.podlinks {
			w.must(slot.process.Resume())
		}
	case sim.PodlinkFlapping:
		for left := f.Lasts; left > 0; left -= 2 * ttl {
			w.podlinkAway(min(left, ttl), w.podlinks...)
			time.Sleep(ttl)
		}
	case sim.StoreKilled:
		w.redis.Kill()
		time.Sleep(f.Lasts)
		w.redis.Restart()
	case sim.StoreFrozen:
		w.redis.Pause()
		time.Sleep(f.Lasts)
		w.redis.Resume()
	case sim.StoreFlushed:
		w.excuses.LostData()
		w.must(w.redis.Client(w.t).FlushAll(context.Background()).Err())
	case sim.UsersMoved:
		for range max(1, *simUsers/20) {
			uid := sim.UID(random.IntN(*simUsers))
			w.excuses.MovedByHand(uid)
			_, _ = w.callers[0].podlink.SetLinkedPod(context.Background(), &v1.SetLinkedPodRequest{
				Namespace: sim.Namespace, Uid: uid, Service: sim.ServiceName,
				PodId: proto.Int32(random.Int32N(pods)), PersistSeconds: proto.Int32(60),
			})
		}
	default:
		w.strikePod(f)
	}
	w.logf("over  %s", f)
}

func (w *world) podlinkAway(d time.Duration, slots ...*podlinkSlot) {
	for _, slot := range slots {
		slot.process.Kill()
	}
	time.Sleep(d)
	for _, slot := range slots {
		w.startPodlink(slot)
	}
}

func (w *world) strikePod(f sim.Fault) {
	defer w.excuses.Impair(f.Pod)()
	p := w.podOf(f.Pod)
	switch f.Kind {
	case sim.PodKilled:
		w.kill(p)
		time.Sleep(f.Lasts)
		w.startPod(f.Pod)
	case sim.PodFrozen:
		w.must(p.process.Freeze())
		time.Sleep(f.Lasts)
		w.must(p.process.Resume())
	case sim.PodDoubled:
		w.startPod(f.Pod)
		time.Sleep(f.Lasts)
		w.kill(p)
	case sim.PodDrained:
		w.must(p.process.Terminate())
		_, err := p.process.Wait(time.Minute)
		w.must(err)
		time.Sleep(f.Lasts)
		w.startPod(f.Pod)
	default:
	}
}

// must notes that the simulator itself has failed.
func (w *world) must(err error) {
	if err != nil {
		w.violate("the simulator: %v", err)
	}
}
