//go:build bench

package bench

import (
	"context"
	"fmt"
	"testing"

	"podlink/internal/biz"
)

// crowd is the number of concurrent callers of a comparison.
const crowd = 256

// effect is what an operation does to links.
type effect int

const (
	reading effect = iota
	changing
	creating
	choosing // chooses a pod, changes no link
)

// act is an operation of podlink's data layer.
type act struct {
	rival
	effect effect
}

// acts returns podlink's operations.
func (r *rig) acts() []act {
	filled := func(t *testing.T) {
		t.Helper()
		put(t, r.plain, freshUsers, service)
	}
	game := biz.ServiceKey{Namespace: namespace, Service: service}
	return []act{
		{rival{name: "Get", call: func(ctx context.Context, n int) error {
			return linkExists(r.links.Get(ctx, linkOf(uid(n))))
		}}, reading},
		{rival{name: "GetIfPersist", call: func(ctx context.Context, n int) error {
			return linkExists(r.links.GetIfPersist(ctx, linkOf(uid(n))))
		}}, reading},
		{rival{name: "List, 1 link", call: func(ctx context.Context, n int) error {
			return second(r.links.List(ctx, namespace, uid(n)))
		}}, reading},
		{rival{name: "Set", call: func(ctx context.Context, n int) error {
			return applied(r.links.Set(ctx, linkOf(uid(n)), biz.PodID(nextPod(n)), biz.Forever, biz.SetTerms{}))
		}}, changing},
		{rival{name: "TrySet", fresh: r.flush, call: func(ctx context.Context, n int) error {
			return applied(r.links.TrySet(ctx, linkOf(user(n)), biz.PodID(podOf(n)), biz.Forever, nil))
		}}, creating},
		{rival{name: "TrySet, temporary", fresh: r.flush, call: func(ctx context.Context, n int) error {
			return applied(r.links.TrySet(ctx, linkOf(user(n)), biz.PodID(podOf(n)), 600, nil))
		}}, creating},
		{rival{name: "SetIfAbsent", fresh: r.flush, call: func(ctx context.Context, n int) error {
			return applied(r.links.SetIfAbsent(ctx, linkOf(user(n)), biz.PodID(podOf(n)), biz.Forever, biz.SetTerms{}))
		}}, creating},
		{rival{name: "Compute's last step", fresh: r.flush, call: func(ctx context.Context, n int) error {
			return applied(r.links.SetIfEpoch(ctx, linkOf(user(n)), biz.PodID(podOf(n)), biz.Forever, biz.MoveTerms{}))
		}}, creating},
		{rival{name: "Remove", fresh: filled, call: func(ctx context.Context, n int) error {
			return applied(r.links.Remove(ctx, linkOf(user(n)), 0, biz.RemoveTerms{}))
		}}, changing},
		{rival{name: "Remove and keep", fresh: filled, call: func(ctx context.Context, n int) error {
			return applied(r.links.Remove(ctx, linkOf(user(n)), 600, biz.RemoveTerms{}))
		}}, changing},
		{rival{name: "RemoveWithID", fresh: filled, call: func(ctx context.Context, n int) error {
			return applied(r.links.RemoveWithID(ctx, linkOf(user(n)), biz.PodID(podOf(n)), 0))
		}}, changing},
		{rival{name: "Reserve, standing", call: func(ctx context.Context, n int) error {
			return second(r.pods.Reserve(ctx, game, biz.ReserveRequest{Linked: biz.PodID(podOf(n))}))
		}}, choosing},
		{rival{name: "Reserve, new", call: func(ctx context.Context, _ int) error {
			return second(r.pods.Reserve(ctx, game, biz.ReserveRequest{Linked: biz.NoPod}))
		}}, choosing},
		{rival{name: computeStanding, call: func(ctx context.Context, n int) error {
			return r.computeStanding(ctx, linkOf(uid(n)))
		}}, choosing},
	}
}

// computeStanding names ComputeLinkedPod of a standing link.
const computeStanding = "Compute, standing"

// contest is an operation of the data layer with its rivals, for many concurrent callers.
type contest struct {
	id     string // of its charts; "" if it is compared at one number of callers only
	act    act
	rivals []rival
}

func (r *rig) contests() []contest {
	ids := map[string]string{"Get": "get", "Set": "set"}
	var all []contest
	for _, act := range r.acts() {
		c := contest{id: ids[act.name], act: act}
		switch act.name {
		case "Get":
			c.rivals = append(r.readers(), rival{name: itselfAlone, call: func(ctx context.Context, n int) error {
				return linkExists(r.unshared.links.Get(ctx, linkOf(uid(n))))
			}})
		case "Set":
			c.rivals = append(r.writers(nil), rival{name: itselfAlone, call: func(ctx context.Context, n int) error {
				return applied(r.unshared.links.Set(ctx, linkOf(uid(n)), biz.PodID(nextPod(n)), biz.Forever, biz.SetTerms{}))
			}})
		case "Remove", computeStanding:
			c.rivals = r.writers(nil)
		case "TrySet", "SetIfAbsent":
			c.rivals = r.writers(r.flush)
		default:
			continue
		}
		all = append(all, c)
	}
	return all
}

// computeStanding computes an existing link, and returns an error if it was created or moved.
func (l layer) computeStanding(ctx context.Context, key biz.LinkKey) error {
	computed, err := l.usecase.Compute(ctx, key, biz.ComputeRequest{TTL: biz.Forever})
	if err == nil && computed.Outcome != biz.Existing {
		err = fmt.Errorf("the link of %s was created or moved: outcome %d", key.UID, computed.Outcome)
	}
	return err
}

// Columns of the table of operations.
const (
	callsPerSecond = iota
	ofRival
	operationP50
	operationP99
	operationCPU
)

// TestDataLayer compares podlink's data layer with the driver alone and with the predecessors, on one Redis.
func TestDataLayer(t *testing.T) {
	table := &Table{
		ID: "data-operations", Title: fmt.Sprintf("Operations, %d callers", crowd),
		Note: fmt.Sprintf("Of %d users with a link. TrySet and SetIfAbsent link users without one, Remove removes existing "+
			"links, and Set moves the user each time. The driver's EVALSHA runs HGET, HSET and PERSIST on one key, the "+
			"predecessors' EVAL GET, SET, PERSIST and HSET on two. The driver's auto-pipeline has two batches "+
			"in flight, its best setting. Each client may have %d connections.", users, connectionsEach),
		Columns: []string{"calls/s", "podlink's, of it", "p50, ms", "p99, ms", "client's CPU per call, µs"},
	}
	r := newRig(t)
	for _, c := range r.contests() {
		throughput, latency, sizes := c.charts()
		r.stand(t)
		rivals := append([]rival{c.act.rival}, c.rivals...)
		rivals[0].name = itself
		for run := range runs {
			for _, callers := range sizes {
				progress(run, "data layer, %s from %d callers", c.act.name, callers)
				all := compare(t, steady(), callers, rivals...)
				for i, m := range all {
					rival, latencies := rivals[i].name, m.percentiles(.5, .99)
					throughput.add(rival, float64(callers), m.rate())
					latency.add(rival+", p50", float64(callers), latencies[0])
					latency.add(rival+", p99", float64(callers), latencies[1])
					if callers != crowd {
						continue
					}
					row := c.act.name + ", " + rival
					table.add(row, callsPerSecond, m.rate())
					table.add(row, operationP50, latencies[0])
					table.add(row, operationP99, latencies[1])
					table.add(row, operationCPU, m.microseconds())
					if i > 0 {
						table.add(row, ofRival, all[0].rate()/m.rate())
					}
				}
			}
		}
		if c.id != "" {
			results.charts(throughput, latency)
		}
	}
	results.tables(table)
	for _, target := range []struct {
		operation, rival, measure string
		limit                     float64
	}{
		{"Get", autoHGet, "of the driver's auto-pipelined HGET", .9},
		{"Get", plainGet, "times the driver's plain GET", 4},
		{"TrySet", predecessorsE, "times the predecessors'", 3},
		{"Set", predecessorsE, "times the predecessors'", 3},
		{"SetIfAbsent", predecessorsE, "times the predecessors'", 3},
		{"TrySet", autoEvalSHA, "of the driver's auto-pipelined EVALSHA of three commands", .85},
		{"Set", autoEvalSHA, "of the driver's auto-pipelined EVALSHA of three commands", .85},
		{"SetIfAbsent", autoEvalSHA, "of the driver's auto-pipelined EVALSHA of three commands", .85},
	} {
		results.target(Target{
			Measure: fmt.Sprintf("%s in the data layer, %d callers: %s", target.operation, crowd, target.measure),
			AtLeast: true, Limit: target.limit, Runs: table.row(target.operation + ", " + target.rival).Cells[ofRival],
		})
	}
}

// charts returns the contest's charts and its numbers of callers. Without an id there is one number, and the charts are not
// published.
func (c contest) charts() (throughput, latency *Chart, callers []int) {
	switch {
	case c.id == "":
		callers = []int{crowd}
	case quick:
		callers = []int{1, crowd}
	default:
		callers = []int{1, 16, 64, crowd, 1024}
	}
	const note = "Each caller calls, waits for the answer and calls again."
	return &Chart{
			ID: "data-throughput-" + c.id, Title: c.act.name + ": throughput against callers", Note: note,
			X: "callers", Y: "calls per second", LogX: true, LogY: true,
		}, &Chart{
			ID: "data-latency-" + c.id, Title: c.act.name + ": latency against callers", Note: note,
			X: "callers", Y: "latency, ms", LogX: true, LogY: true,
		}, callers
}
