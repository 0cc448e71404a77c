//go:build bench

package bench

import (
	"context"
	"fmt"
	"math"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"podlink/internal/biz"
	"podlink/internal/conf"
	redistest "podlink/test/kit/redis"
)

const (
	// strainers is the number of callers of most strains.
	strainers = 600
	// callTimeout is the deadline of each call, that of podlink's requests by default.
	callTimeout = time.Second
	// neighbour is the namespace of the bystander, who makes neighbourRate calls per second for one of neighbourUsers users.
	neighbour                     = "neighbour"
	neighbourCallers              = 20
	neighbourRate, neighbourUsers = 200, 100
)

// strain is a load of one namespace, with which a bystander of another one shares podlink and Redis.
type strain struct {
	name    string
	callers int
	// ready pods are live and never expire, dead ones have expired; state is the text of each.
	ready, dead int
	state       string
	call        func(l layer, ctx context.Context, n int) error // nil: a new link
	// burst: all callers call at once, and again when all were answered.
	burst bool
}

// strains returns the loads, fewer of them for a quick run.
func strains() []strain {
	dead, emoji := 10_000, strings.Repeat("🙂", 256)
	if quick {
		dead = 1000
	}
	all := []strain{
		{name: "new links, 10 pods", ready: 10},
		{name: "new links, 1,000 pods", ready: 1000},
		{name: fmt.Sprintf("new links, 10 pods and %d dead ones", dead), ready: 10, dead: dead},
		{name: "new links, 10 pods with states of 256 emoji", ready: 10, state: emoji},
		{name: "800 new links at once, 1,000 pods", ready: 1000, callers: 800, burst: true},
		{name: "reports with states of 256 emoji, 1,000 pods", ready: 1000, state: emoji, callers: connections,
			call: func(l layer, ctx context.Context, n int) error {
				return l.reportPod(ctx, namespace, biz.Report{Pod: biz.PodID(n % 1000), State: emoji, TTL: biz.Forever})
			}},
		{name: "temporary links of one uid to 256 services", callers: connections,
			call: func(l layer, ctx context.Context, n int) error {
				key := biz.LinkKey{Namespace: namespace, UID: "one", Service: fmt.Sprintf("service-%d", n%256)}
				return applied(l.links.Set(ctx, key, biz.PodID(n%pods), 600, biz.SetTerms{}))
			}},
	}
	if quick {
		return all
	}
	return append(all,
		strain{name: "new links, 100 pods", ready: 100},
		strain{name: "new links, 10 pods with states of 1,024 bytes", ready: 10, state: strings.Repeat("s", 1024)},
		strain{name: "new links, 1,000 pods with states of 256 emoji", ready: 1000, state: emoji},
		strain{name: "new links, 10 pods and 50000 dead ones", ready: 10, dead: 50_000},
	)
}

// strained is podlink's data layer on a Redis with the pods of a strain, and with the users of the bystander.
type strained struct {
	strain
	layer
	redis int // process id
	calls atomic.Int64
	given []atomic.Int64 // new links per pod
}

// prepare starts a Redis, and reports the pods.
func (s strain) prepare(t *testing.T) *strained {
	t.Helper()
	server := redistest.Start(t)
	r := &strained{strain: s, redis: redisPID(t, server), given: make([]atomic.Int64, s.ready)}
	// podlink's own timeouts, since a bystander that waits too long fails.
	r.layer = layerWith(t, func(c *conf.Data_Redis) {
		plain := conf.Default().GetData().GetRedis()
		c.Mode, c.Addrs = conf.ModeStandalone, []string{server.Addr()}
		c.PoolSize, c.PoolTimeout, c.DialTimeout = plain.GetPoolSize(), plain.GetPoolTimeout(), plain.GetDialTimeout()
		c.ReadTimeout, c.WriteTimeout = plain.GetReadTimeout(), plain.GetWriteTimeout()
	})
	if r.state == "" {
		r.state = "running"
	}
	if r.callers == 0 {
		r.callers = strainers
	}
	r.reportPods(t, neighbour, 0, pods, biz.Forever)
	r.reportPods(t, namespace, 0, s.ready, biz.Forever)
	r.reportDead(t)
	for user := range neighbourUsers {
		key := r.bystander(user)
		require.NoError(t, applied(r.links.Set(t.Context(), key, biz.PodID(podOf(user)), biz.Forever, biz.SetTerms{})))
	}
	return r
}

// reportDead reports pods, and lets them expire: a live pod reports until theirs are too old. It does so in steps, because
// the number of pods that are not dead is limited.
func (r *strained) reportDead(t *testing.T) {
	t.Helper()
	const step, expiry = 2000, 1500 * time.Millisecond
	for reported := 0; reported < r.dead; reported += step {
		r.reportPods(t, namespace, r.ready+reported, min(step, r.dead-reported), 1)
		for begin := time.Now(); time.Since(begin) < expiry; time.Sleep(50 * time.Millisecond) {
			r.reportPods(t, namespace, 0, r.ready, biz.Forever)
		}
	}
}

func (r *strained) reportPods(t *testing.T, namespace string, first, count int, ttl biz.TTL) {
	t.Helper()
	var next atomic.Int64
	_, err := from(connections, overrunTimeout, func(ctx context.Context, _ int, _ func(time.Duration)) error {
		for n := int(next.Add(1)) - 1; n < count; n = int(next.Add(1)) - 1 {
			err := r.reportPod(ctx, namespace, biz.Report{Pod: biz.PodID(first + n), State: r.state, TTL: ttl})
			if err != nil {
				return err
			}
		}
		return nil
	})
	require.NoError(t, err)
}

// reportPod stores a report of a pod of the service.
func (l layer) reportPod(ctx context.Context, namespace string, report biz.Report) error {
	report.Capacity = biz.NoCapacity
	return second(l.pods.Set(ctx, biz.ServiceKey{Namespace: namespace, Service: service}, report))
}

func (*strained) bystander(user int) biz.LinkKey {
	return biz.LinkKey{Namespace: neighbour, UID: uid(user % neighbourUsers), Service: service}
}

// next is the strain's next call.
func (r *strained) next(ctx context.Context, _ int) error {
	n := int(r.calls.Add(1))
	if r.call != nil {
		return r.call(r.layer, ctx, n)
	}
	computed, err := r.usecase.Compute(ctx, linkOf(user(n)), biz.ComputeRequest{TTL: biz.Forever})
	if err == nil && computed.Outcome != biz.Created {
		err = fmt.Errorf("the link of %s was not created: outcome %d", user(n), computed.Outcome)
	}
	if err == nil {
		r.given[computed.Link.Pod].Add(1)
	}
	return err
}

// spread returns how many more new links the pod with most got than the one with fewest.
func (r *strained) spread() float64 {
	least, most := int64(math.MaxInt64), int64(0)
	for pod := range r.given {
		least, most = min(least, r.given[pod].Load()), max(most, r.given[pod].Load())
	}
	return float64(most - least)
}

// tally counts the failures of a call, and the answers. It gives each call podlink's deadline.
type tally struct {
	call             call
	answered, failed atomic.Int64
}

func (c *tally) count(ctx context.Context, caller int) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	if c.call(ctx, caller) != nil {
		c.failed.Add(1)
	} else {
		c.answered.Add(1)
	}
	return nil
}

// pressed is what the strain and the bystander got in a slice of time.
type pressed struct {
	rate                    float64 // answers per second to the strain
	failed, bystanderFailed float64 // calls
	bystanderP99            float64 // ms
	redis                   float64 // CPU time of Redis per answer to the strain, µs
}

// press runs the strain for a slice of time while the bystander calls: as fast as it gets answers, or at a rate per second.
func (r *strained) press(t *testing.T, slice time.Duration, rate float64) pressed {
	t.Helper()
	strain := &tally{call: r.next}
	beside := &tally{call: func(ctx context.Context, caller int) error {
		key := r.bystander(int(r.calls.Add(1)))
		switch caller % 3 {
		case 0:
			return linkExists(r.links.Get(ctx, key))
		case 1:
			return applied(r.links.Set(ctx, key, biz.PodID(caller%pods), biz.Forever, biz.SetTerms{}))
		default:
			return r.computeStanding(ctx, key)
		}
	}}
	before, begin := cpuTime(t, r.redis), time.Now()
	var running sync.WaitGroup
	var waited load
	var err, errBeside error
	running.Go(func() { waited, errBeside = open(neighbourCallers, neighbourRate, slice, beside.count) })
	switch {
	case r.burst:
		err = r.bursts(slice, rate, strain.count)
	case rate > 0:
		_, err = open(r.callers, rate, slice, strain.count)
	default:
		_, err = closed(r.callers, slice, strain.count)
	}
	took := time.Since(begin)
	running.Wait()
	require.NoError(t, err)
	require.NoError(t, errBeside)
	answered := max(float64(strain.answered.Load()), 1)
	return pressed{
		rate:            answered / took.Seconds(),
		failed:          float64(strain.failed.Load()),
		bystanderFailed: float64(beside.failed.Load()),
		bystanderP99:    waited.percentiles(.99)[0],
		redis:           float64((cpuTime(t, r.redis) - before).Microseconds()) / answered,
	}
}

// bursts makes all callers call at once, again and again: as soon as all were answered, or at a rate of calls per second.
func (r *strained) bursts(slice time.Duration, rate float64, call call) error {
	for begin, n := time.Now(), 1; time.Since(begin) < slice; n++ {
		_, err := from(r.callers, slice, func(ctx context.Context, caller int, _ func(time.Duration)) error {
			return call(ctx, caller)
		})
		if err != nil {
			return err
		}
		if rate > 0 {
			time.Sleep(time.Until(begin.Add(time.Duration(float64(n*r.callers) / rate * float64(time.Second)))))
		}
	}
	return nil
}

// TestStrain measures the choice of a pod for new links, and what a bystander of another namespace notices of it and of other
// loads.
func TestStrain(t *testing.T) {
	const perSecond, redisTime, ofTen, failed, uneven, failedBeside, p99Full, p99Half = 0, 1, 2, 3, 4, 5, 6, 7
	table := &Table{
		ID: "choice-strain", Title: "New links, and a bystander",
		Note: fmt.Sprintf("The data layer with its default timeouts, loaded by %d callers of one namespace (64 for reports and "+
			"temporary links), first as fast as they get answers, then at half that rate. A bystander of another namespace makes "+
			"%d calls per second meanwhile (Get, Set and Compute of standing links); its latency counts from when a call was due. "+
			"A call that takes longer than %s has failed. No pod that gets links reports in between.",
			strainers, neighbourRate, callTimeout),
		Columns: []string{
			"calls/s", "Redis' CPU per call, µs", "of that with 10 pods", "failed calls", "links of the fullest pod above the emptiest",
			"bystander's failed calls", "bystander's p99, ms", "at half the rate, ms",
		},
	}
	took := 4 * slice()
	for _, s := range strains() {
		progress(0, "strain, preparing %s", s.name)
		r := s.prepare(t)
		r.press(t, took/4, 0) // A warm-up.
		for run := range runs {
			progress(run, "strain, %s", s.name)
			full := r.press(t, took, 0)
			half := r.press(t, took, full.rate/2)
			table.add(s.name, perSecond, full.rate)
			table.add(s.name, redisTime, full.redis)
			table.add(s.name, failed, full.failed)
			table.add(s.name, failedBeside, full.bystanderFailed+half.bystanderFailed)
			table.add(s.name, p99Full, full.bystanderP99)
			table.add(s.name, p99Half, half.bystanderP99)
			if s.call == nil {
				table.add(s.name, ofTen, full.redis/table.Rows[0].Cells[redisTime][run])
				table.add(s.name, uneven, r.spread())
			}
		}
	}
	results.tables(table)
	for i, s := range strains() {
		cells := table.row(s.name).Cells
		if i > 0 && s.call == nil && !s.burst {
			results.target(Target{
				Measure: "Redis' time per call, " + s.name + ": of that with 10 pods", Limit: 1.3, Runs: cells[ofTen],
			})
		}
		results.target(Target{Measure: s.name + ": a bystander's failed calls", Runs: cells[failedBeside]})
		results.target(Target{
			Measure: s.name + ", at half the rate: a bystander's p99", Limit: 20, Unit: "ms", Runs: cells[p99Half],
		})
	}
	thousand := table.row("new links, 1,000 pods").Cells
	results.target(Target{
		Measure: fmt.Sprintf("new links, 1,000 pods, %d callers", strainers), AtLeast: true, Limit: 8000, Unit: "a second",
		Runs: thousand[perSecond],
	})
	results.target(Target{
		Measure: "new links, 1,000 pods: links of the fullest pod above the emptiest", Limit: 1, Runs: thousand[uneven],
	})
}
