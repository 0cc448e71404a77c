package main

import (
	"context"
	"errors"
	"io"
	"math"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// machine simulates a real machine: its speed drifts by a factor of two, some slices are disturbed, and two processes of the same
// binary differ by up to 6 %.
type machine struct {
	random *rand.Rand
	slices int
}

// simulated is a process on a simulated machine.
type simulated struct {
	*machine
	speed   float64            // of this process
	slower  map[string]float64 // operation -> cost of a call, relative to base; 1 if absent
	stopped *int
}

func (s *simulated) run(_ context.Context, m measure, slice time.Duration) (work, error) {
	s.slices++
	speed := s.speed * (1.5 + .5*math.Sin(float64(s.slices)/500))
	if s.random.Float64() < .2 {
		speed *= .3 + .7*s.random.Float64()
	}
	cost := 1.0
	if slower, ok := s.slower[m.operation]; ok {
		cost = slower
	}
	calls := int(1e5 * speed / cost * slice.Seconds())
	return work{calls: calls, took: slice, cpu: slice / 2}, nil
}

func (s *simulated) stop() { *s.stopped++ }

// simulate compares base with a head that is slower by operation, and returns the report's error.
func simulate(t *testing.T, seed uint64, slower map[string]float64) error {
	t.Helper()
	m := &machine{random: rand.New(rand.NewPCG(seed, 1))}
	started, stopped := 0, 0
	process := func(slower map[string]float64) subject {
		started++
		return &simulated{machine: m, speed: .97 + .06*m.random.Float64(), slower: slower, stopped: &stopped}
	}
	p := part{start: func(context.Context, bool) (subject, subject, error) { return process(nil), process(slower), nil }}
	for _, operation := range []string{"Get", "Set", "Compute", "BatchGet"} {
		for _, callers := range []int{1, crowd} {
			p.measures = append(p.measures, measure{overGRPC, operation, callers})
		}
	}
	c := comparison{
		plan:  plan{slice: 25 * time.Millisecond, turns: 8, rounds: 20, time: time.Millisecond},
		limit: .97, parts: []part{p},
	}
	require.NoError(t, c.run(t.Context(), func(string) {}))
	require.Equal(t, started, stopped, "every process is stopped")
	return report(io.Discard, c.rows(), c.limit)
}

func TestSameRevisionPasses(t *testing.T) {
	for seed := range uint64(20) {
		require.NoError(t, simulate(t, seed, nil), "seed %d", seed)
	}
}

func TestSlowerHeadFails(t *testing.T) {
	everywhere := map[string]float64{"Get": 1.08, "Set": 1.08, "Compute": 1.08, "BatchGet": 1.08}
	for seed := range uint64(20) {
		require.ErrorContains(t, simulate(t, seed, everywhere), "all of gRPC: calls/s", "seed %d", seed)
		require.ErrorContains(t, simulate(t, seed, map[string]float64{"Get": 1.12}), "gRPC, Get, 1 caller: calls/s", "seed %d", seed)
	}
}

// recorder records the order of turns.
type recorder struct {
	name string
	into *strings.Builder
	err  error
}

func (r recorder) run(context.Context, measure, time.Duration) (work, error) {
	r.into.WriteString(r.name)
	return work{calls: 1, took: 1, cpu: 1}, r.err
}

func (recorder) stop() {}

func TestOrderOfTurns(t *testing.T) {
	c := comparison{plan: plan{turns: 4}}
	for swapped, want := range map[bool]string{false: "bh hb bh hb bh", true: "hb bh hb bh hb"} {
		var order strings.Builder
		_, err := c.takeTurns(t.Context(), measure{}, recorder{"b", &order, nil}, recorder{"h", &order, nil}, swapped)
		require.NoError(t, err)
		require.Equal(t, strings.ReplaceAll(want, " ", ""), order.String())
	}
	failed := recorder{"h", new(strings.Builder), errors.New("refused")}
	_, err := c.takeTurns(t.Context(), measure{}, recorder{"b", failed.into, nil}, failed, false)
	require.ErrorContains(t, err, "refused")
	_, err = c.takeTurns(t.Context(), measure{}, constant(1), constant(0), false)
	require.ErrorContains(t, err, "no call")
}

// TestUndecidedPartsGetMoreRounds: until they are decided or the time is over.
func TestUndecidedPartsGetMoreRounds(t *testing.T) {
	const rounds = 6
	m := measure{path: overGRPC}
	compare := func(limit float64, time time.Duration) int {
		started := 0
		start := func(context.Context, bool) (subject, subject, error) {
			started++
			return constant(1), constant(1 + started%2*2), nil // Alternately as fast as base and three times as fast.
		}
		c := comparison{
			plan: plan{turns: 1, rounds: rounds, time: time}, limit: limit,
			parts: []part{{measures: []measure{m}, start: start}},
		}
		require.NoError(t, c.run(t.Context(), func(string) {}))
		return len(c.pairs[m])
	}
	require.Equal(t, rounds, compare(.97, time.Hour), "decided")
	require.Equal(t, rounds, compare(2, 0), "the time is over")
	require.Greater(t, compare(2, 50*time.Millisecond), rounds)
}

// constant is a subject with the same number of calls in every slice.
type constant int

func (c constant) run(context.Context, measure, time.Duration) (work, error) {
	return work{calls: int(c), took: time.Second, cpu: time.Second}, nil
}

func (constant) stop() {}
