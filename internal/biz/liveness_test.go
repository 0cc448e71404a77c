package biz_test

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"podlink/internal/biz"
)

// TestLiveness: the rule by hand, at its borders. The pod reported at 1,000 when 500 had been heard; its ttl is 10 s.
func TestLiveness(t *testing.T) {
	const reported, heard = 1_000, 500
	for _, row := range []struct {
		name    string
		hearing biz.Hearing
		now     int64
		want    biz.Liveness
	}{
		{"just reported", biz.Hearing{Heard: heard}, reported, biz.Live},
		{"the last moment of its ttl", biz.Hearing{Heard: heard + 10_000}, reported + 10_000, biz.Live},
		{"no pod was heard since", biz.Hearing{Heard: heard}, reported + 10_001, biz.InDoubt},
		{"not even in a year", biz.Hearing{Heard: heard}, reported + 31_536_000_000, biz.InDoubt},
		{"others were heard for a ttl", biz.Hearing{Heard: heard + 10_000}, reported + 10_001, biz.InDoubt},
		{"and for longer", biz.Hearing{Heard: heard + 10_001}, reported + 10_001, biz.Dead},
		{"also if the clock was put back", biz.Hearing{Heard: heard + 10_001}, reported - 3_600_000, biz.Dead},
		{"resumed before the report", biz.Hearing{Heard: heard + 10_001, Resumed: heard}, reported + 10_001, biz.Dead},
		{"resumed since", biz.Hearing{Heard: heard + 10_001, Resumed: heard + 1}, reported + 10_001, biz.InDoubt},
		{"a ttl ago", biz.Hearing{Heard: heard + 20_000, Resumed: heard + 10_000}, reported + 60_000, biz.InDoubt},
		{"more than a ttl ago", biz.Hearing{Heard: heard + 20_001, Resumed: heard + 10_000}, reported + 60_000, biz.Dead},
		{"again and again", biz.Hearing{Heard: heard + 30_000, Resumed: heard + 30_000}, reported + 90_000, biz.InDoubt},
		{"for three ttl", biz.Hearing{Heard: heard + 30_001, Resumed: heard + 30_001}, reported + 90_000, biz.Dead},
	} {
		t.Run(row.name, func(t *testing.T) {
			require.Equal(t, row.want, row.hearing.Liveness(10, reported, heard, row.now))
			require.Equal(t, biz.Live, row.hearing.Liveness(biz.Forever, reported, heard, row.now), "ttl -1")
		})
	}
}

const (
	// Pauses before a failed report is repeated, in ms.
	onceASecond      = 1000
	fourTimesASecond = 250
	// startMs is how long a service reports before something happens to it, and settleMs how long it is observed afterwards.
	startMs, settleMs = 20_000, 40_000
	hourMs            = 3_600_000
	// Numbers of seeds.
	seeds, manySeeds = 40, 120
)

// scenario is a story of a service, told for a number of seeds. It must leave every user of a running process alone, and find
// the pods that do not run.
type scenario struct {
	name  string
	seeds uint64
	// story returns the pods that don't run at the end with the earliest and the latest time at which they may be found.
	story func(w *world) []death
}

// death is a pod whose process ended for good. Its users must be moved within the span, in ms of the world's time.
type death struct {
	pod              biz.PodID
	earliest, latest int64
}

// five starts five pods with ttl 15 s, and lets them report for a while.
func five(w *world, retryMs int64) {
	for range 5 {
		w.start(15, retryMs)
	}
	w.pass(startMs + w.random.Int64N(5_000))
}

// outage lets no report arrive for a time, and then some time pass.
func outage(w *world, ms, afterMs int64) {
	w.away = true
	w.pass(ms)
	w.away = false
	w.pass(afterMs)
}

// flapping is six outages of 20 s with short returns between them.
func flapping(returnMs, retryMs int64) func(w *world) []death {
	return func(w *world) []death {
		five(w, retryMs)
		for range 6 {
			outage(w, 20_000, returnMs)
		}
		w.pass(settleMs)
		return nil
	}
}

func scenarios() []scenario {
	var all []scenario
	add := func(name string, seeds uint64, story func(w *world) []death) {
		all = append(all, scenario{name, seeds, story})
	}

	add("nothing happens", seeds, func(w *world) []death {
		five(w, onceASecond)
		w.pass(10 * settleMs)
		return nil
	})
	for _, away := range []int64{4, 8, 15, 20, 30, 45, 60, 75} {
		add(fmt.Sprintf("one outage of %d s", away), seeds, func(w *world) []death {
			five(w, onceASecond)
			outage(w, away*1000, settleMs)
			return nil
		})
	}
	add("one outage of a day", seeds, func(w *world) []death {
		five(w, onceASecond)
		w.events = nil // Nothing happens for a day.
		w.pass(24 * hourMs)
		for _, p := range w.processes {
			w.run(p, w.random.Int64N(onceASecond))
		}
		w.computeFromNowOn()
		w.pass(settleMs)
		return nil
	})
	for _, back := range []int64{600, 1000, 1500, 3000, 8000} {
		add(fmt.Sprintf("six outages of 20 s, %d ms apart", back), manySeeds, flapping(back, onceASecond))
	}
	add("six outages of 20 s, 300 ms apart, reports are repeated four times a second", manySeeds,
		flapping(300, fourTimesASecond))
	for _, loss := range []int{10, 30} {
		add(fmt.Sprintf("%d %% of the reports are lost", loss), seeds, func(w *world) []death {
			w.loss = float64(loss) / 100
			five(w, onceASecond)
			w.pass(5 * settleMs)
			outage(w, 30_000, settleMs)
			return nil
		})
	}
	add("mixed ttls", seeds, func(w *world) []death {
		for _, ttl := range []biz.TTL{3, 6, 15, 60, biz.Forever} {
			w.start(ttl, onceASecond)
		}
		w.pass(startMs)
		outage(w, w.between(4_000, 90_000), 2*settleMs)
		return nil
	})
	add("the pod with the smallest ttl leaves", seeds, func(w *world) []death {
		for _, ttl := range []biz.TTL{2, 30, 30, 30} {
			w.start(ttl, onceASecond)
		}
		w.pass(2 * startMs)
		at := w.nowMs
		w.end(w.processes[0])
		w.pass(w.between(60_000, 90_000))
		outage(w, w.between(10_000, 60_000), 2*settleMs)
		return []death{{0, at, at + 60_000}} // The others report every 10 s.
	})
	add("ttl 1 s", seeds, func(w *world) []death {
		for range 5 {
			w.start(1, fourTimesASecond)
		}
		w.pass(startMs)
		outage(w, w.between(500, 20_000), settleMs)
		return nil
	})
	add("ttl -1", seeds, func(w *world) []death {
		for range 3 {
			w.start(biz.Forever, onceASecond)
		}
		w.pass(startMs)
		w.end(w.processes[0])
		outage(w, w.between(4_000, 600_000), settleMs)
		return nil // Its report never expires: it isn't found.
	})
	add("one of five pods dies", seeds, func(w *world) []death {
		five(w, onceASecond)
		w.end(w.processes[2])
		at := w.nowMs
		w.pass(settleMs)
		return []death{{2, at + 9_000, at + 20_000}}
	})
	add("one of two pods dies", seeds, func(w *world) []death {
		w.start(15, onceASecond)
		w.start(15, onceASecond)
		w.pass(startMs)
		w.end(w.processes[0])
		at := w.nowMs
		w.pass(settleMs)
		return []death{{0, at + 9_000, at + 22_000}}
	})
	add("one of five pods dies during an outage", seeds, func(w *world) []death {
		five(w, onceASecond)
		w.end(w.processes[2])
		outage(w, w.between(20_000, 60_000), 0)
		at := w.nowMs
		w.pass(settleMs)
		return []death{{2, at, at + 20_000}}
	})
	add("one of five pods dies while reports come and go", seeds, func(w *world) []death {
		five(w, onceASecond)
		w.end(w.processes[2])
		at := w.nowMs
		for range 20 {
			outage(w, 20_000, 1_500)
		}
		return []death{{2, at + 20_000, at + 7*21_500}}
	})
	add("one of five pods is cut off for less than half a ttl", seeds, func(w *world) []death {
		five(w, onceASecond)
		w.processes[3].away = true
		w.pass(7_000)
		w.processes[3].away = false
		w.pass(settleMs)
		return nil
	})
	add("a slow reporter is alone", seeds, func(w *world) []death {
		w.start(15, onceASecond).everyMs = 40_000
		w.pass(600_000)
		return nil
	})
	add("a slow reporter is left behind", seeds, func(w *world) []death {
		w.start(15, onceASecond).everyMs = 14_000
		w.start(15, onceASecond)
		w.pass(startMs)
		w.end(w.processes[1])
		at := w.nowMs
		w.pass(10 * settleMs)
		return []death{{1, at + 15_000, at + 7*15_000}}
	})
	for _, step := range []int64{hourMs, -hourMs} {
		add(fmt.Sprintf("the store's clock moves by %+d h", step/hourMs), seeds, func(w *world) []death {
			five(w, onceASecond)
			w.skewMs += step
			w.pass(settleMs)
			at := w.nowMs
			w.end(w.processes[1])
			w.pass(w.between(0, 3_000))
			w.skewMs -= step
			w.pass(2 * settleMs)
			return []death{{1, at + 9_000, at + 35_000}}
		})
	}
	add("the store's clock moves by an hour again and again", seeds, func(w *world) []death {
		five(w, onceASecond)
		for range 10 {
			w.skewMs = hourMs - w.skewMs
			w.pass(w.between(1_000, 20_000))
		}
		return nil
	})
	add("scaled to zero, and back to three", seeds, func(w *world) []death {
		five(w, onceASecond)
		for _, p := range w.processes {
			w.end(p)
		}
		w.pass(w.between(1_000, 2*hourMs))
		for _, p := range w.processes[:3] {
			w.run(p, w.random.Int64N(8_000))
		}
		at := w.nowMs
		w.pass(settleMs)
		return []death{{3, at, at + 30_000}, {4, at, at + 30_000}}
	})
	for _, took := range []struct {
		what     string
		from, to int64
	}{{"less than two thirds", 1_000, 9_500}, {"half to one and a half", 8_000, 22_000}} {
		add("all pods are restarted at once, which takes "+took.what+" of a ttl", seeds, func(w *world) []death {
			five(w, onceASecond)
			for _, p := range w.processes {
				w.end(p)
				w.run(p, w.between(took.from, took.to))
			}
			w.pass(settleMs)
			return nil
		})
	}
	return all
}

// TestSimulation: an outage moves no user, and a pod that died is found, in a simulated service. The seed of a failure repeats it.
func TestSimulation(t *testing.T) {
	for _, s := range scenarios() {
		t.Run(s.name, func(t *testing.T) {
			t.Parallel()
			for seed := range s.seeds {
				for _, failure := range s.run(seed, biz.Hearing.Liveness) {
					t.Errorf("seed %d: %s", seed, failure)
				}
			}
		})
	}
}

// run tells the story, and returns what was wrong.
func (s scenario) run(seed uint64, judge rule) (failures []string) {
	w := newWorld(seed, judge)
	deaths := s.story(w)
	if w.moved > 0 {
		failures = append(failures, fmt.Sprintf("%d users were moved from pods that run", w.moved))
	}
	if w.refused > 0 {
		failures = append(failures, fmt.Sprintf("%d users of pods that run were refused", w.refused))
	}
	for _, d := range deaths {
		found, ok := w.found[d.pod]
		switch {
		case !ok:
			failures = append(failures, fmt.Sprintf("pod %d ended, and was not found", d.pod))
		case found < d.earliest || found > d.latest:
			failures = append(failures, fmt.Sprintf("pod %d was found %d ms too early or %d ms too late",
				d.pod, d.earliest-found, found-d.latest))
		}
	}
	return failures
}

// TestSimulationOfShortReturns: returns that are shorter than the pause before a failed report is repeated are missed by some
// pods. It bounds how often that moves users; docs/guarantees.md has the figure of 1,200 seeds.
func TestSimulationOfShortReturns(t *testing.T) {
	s := scenario{story: flapping(300, onceASecond)}
	bad := 0
	for seed := range uint64(manySeeds) {
		if len(s.run(seed, biz.Hearing.Liveness)) > 0 {
			bad++
		}
	}
	t.Logf("users were moved in %d of %d seeds", bad, manySeeds)
	require.LessOrEqual(t, bad, manySeeds/5)
}

// TestSimulationKnownBad: rules that are too simple fail scenarios.
func TestSimulationKnownBad(t *testing.T) {
	all := make(map[string]scenario)
	for _, s := range scenarios() {
		all[s.name] = s
	}
	for _, row := range []struct {
		name   string
		judge  rule
		failed []string
	}{
		{
			"dead as soon as the report has expired",
			func(_ biz.Hearing, ttl biz.TTL, reportMs, _, nowMs int64) biz.Liveness {
				if ttl == biz.Forever || nowMs <= reportMs+int64(ttl)*1000 {
					return biz.Live
				}
				return biz.Dead
			},
			[]string{
				"one outage of 15 s", "one outage of 60 s", "six outages of 20 s, 8000 ms apart", "mixed ttls", "ttl 1 s",
				"a slow reporter is alone", "the store's clock moves by +1 h",
			},
		},
		{
			"without resumed",
			func(h biz.Hearing, ttl biz.TTL, reportMs, heardMs, nowMs int64) biz.Liveness {
				h.Resumed = heardMs
				return h.Liveness(ttl, reportMs, heardMs, nowMs)
			},
			[]string{
				"six outages of 20 s, 600 ms apart",
				"all pods are restarted at once, which takes half to one and a half of a ttl",
			},
		},
	} {
		for _, name := range row.failed {
			t.Run("known-bad/"+row.name+"/"+name, func(t *testing.T) {
				t.Parallel()
				s, known := all[name]
				require.True(t, known)
				bad := 0
				for seed := range s.seeds {
					if len(s.run(seed, row.judge)) > 0 {
						bad++
					}
				}
				require.Greater(t, bad, int(s.seeds)/2, "seeds that show it")
			})
		}
	}
}
