package biztest

import (
	"testing"
	"time"

	"podlink/internal/biz"

	"github.com/stretchr/testify/require"
)

// process is a process of the default pod. It reports as an agent does.
type process struct {
	*env
	instance   string
	sequence   int64
	generation biz.Generation
}

// pod is the ordinal of the processes.
const pod biz.PodID = 3

// send sends a report of the process, without keeping anything from the reply.
func (p *process) send(supersedes biz.Generation, routing biz.Routing) (biz.ReportResult, error) {
	return p.Pods.Set(p.Context(), p.pods(), biz.Report{
		Pod: pod, State: p.instance, Routing: routing, TTL: 30, Capacity: biz.NoCapacity,
		Instance: p.instance, Sequence: p.sequence, Generation: p.generation, Supersedes: supersedes,
	})
}

// begin sends the first report of the process.
func (p *process) begin(supersedes biz.Generation) {
	p.Helper()
	p.sequence = 1
	result, err := p.send(supersedes, biz.Ready)
	require.NoError(p, err)
	require.True(p, result.Applied)
	p.generation = result.Pod.Generation
}

// next sends the next report.
func (p *process) next(routing biz.Routing) (biz.ReportResult, error) {
	p.sequence++
	return p.send(0, routing)
}

func (e *env) process(instance string) *process { return &process{env: e, instance: instance} }

// requireSuperseded checks the error, and that nothing has changed, not even what was heard.
func (e *env) requireSuperseded(generation biz.Generation, final bool, report func() (biz.ReportResult, error)) {
	e.Helper()
	e.requireUnchanged(func() {
		_, err := report()
		var superseded *biz.SupersededError
		require.ErrorAs(e, err, &superseded)
		require.Equal(e, biz.SupersededError{Generation: generation, Final: final}, *superseded)
	})
}

// requireLate checks that a report was not applied, and that nothing has changed.
func (e *env) requireLate(report func() (biz.ReportResult, error)) biz.ReportResult {
	e.Helper()
	var result biz.ReportResult
	e.requireUnchanged(func() {
		var err error
		result, err = report()
		require.NoError(e, err)
		require.False(e, result.Applied)
		require.Nil(e, result.Previous)
	})
	return result
}

func (e *env) requireUnchanged(do func()) {
	e.Helper()
	tick()
	before := e.podsView()
	do()
	require.Equal(e, before, e.podsView())
}

func testInstances(t *testing.T, s suite) {
	s.test(t, "a late SHUTDOWN of the process before changes nothing", func(e *env) {
		old, young := e.process("old"), e.process("young")
		old.begin(0)
		young.begin(old.generation)
		require.Greater(e, young.generation, old.generation)
		e.requireSuperseded(young.generation, false, func() (biz.ReportResult, error) { return old.next(biz.Shutdown) })
		require.Equal(e, biz.Ready, e.get(pod).Effective())
		result, err := young.next(biz.DenyNew)
		require.NoError(e, err)
		require.Equal(e, young.generation, result.Pod.Generation)
		require.Equal(e, biz.DenyNew, result.Pod.Routing)
	})
	s.test(t, "the generation is the store's clock in µs", func(e *env) {
		first := e.process("first")
		first.begin(0)
		require.InDelta(e, float64(time.Now().UnixMicro()), float64(first.generation), float64(clockSlack.Microseconds()))
	})
	s.test(t, "a doubled report changes nothing", func(e *env) {
		p := e.process("p")
		p.begin(0)
		result, err := p.next(biz.DenyNew)
		require.NoError(e, err)
		require.True(e, result.Applied)
		late := e.requireLate(func() (biz.ReportResult, error) { return p.send(0, biz.Shutdown) })
		require.Equal(e, result.Pod, late.Pod)
		require.Equal(e, result.StoreID, late.StoreID)
		p.sequence--
		e.requireLate(func() (biz.ReportResult, error) { return p.send(0, biz.Shutdown) })
	})
	s.test(t, "the first report is repeated after a lost reply", func(e *env) {
		p := e.process("p")
		p.begin(0)
		generation := p.generation
		p.generation = 0
		late := e.requireLate(func() (biz.ReportResult, error) { return p.send(0, biz.Ready) })
		require.Equal(e, generation, late.Pod.Generation)
		p.sequence++
		result, err := p.send(0, biz.Ready)
		require.NoError(e, err)
		require.True(e, result.Applied)
		require.Equal(e, generation, result.Pod.Generation)
	})
	s.test(t, "two processes of one ordinal end with one of them", func(e *env) {
		a, b := e.process("a"), e.process("b")
		a.begin(0)
		generation := a.generation
		b.begin(generation)
		// The first report of a, whose reply was lost, is repeated.
		a.generation = 0
		e.requireSuperseded(b.generation, true, func() (biz.ReportResult, error) { return a.send(0, biz.Ready) })
		a.generation = generation
		e.requireSuperseded(b.generation, false, func() (biz.ReportResult, error) { return a.next(biz.Ready) })
		_, err := b.next(biz.Ready)
		require.NoError(e, err)
	})
	s.test(t, "a process that does not know the one before must read the pod", func(e *env) {
		a, b := e.process("a"), e.process("b")
		a.begin(0)
		b.sequence = 1
		for _, supersedes := range []biz.Generation{0, a.generation - 1, a.generation + 1} {
			e.requireSuperseded(a.generation, false, func() (biz.ReportResult, error) { return b.send(supersedes, biz.Ready) })
		}
		b.begin(e.get(pod).Generation)
	})
	s.test(t, "after a loss the greatest generation wins", func(e *env) {
		p, q := e.process("p"), e.process("q")
		p.generation, p.sequence = 500, 7
		result, err := p.next(biz.Ready)
		require.NoError(e, err)
		require.EqualValues(e, 500, result.Pod.Generation)
		q.generation, q.sequence = 501, 2
		result, err = q.next(biz.Ready)
		require.NoError(e, err)
		require.EqualValues(e, 501, result.Pod.Generation)
		require.Equal(e, "q", result.Pod.Instance)
		e.requireSuperseded(501, false, func() (biz.ReportResult, error) { return p.next(biz.Ready) })
	})
	s.test(t, "the largest numbers", func(e *env) {
		const largest = 1<<52 - 1
		p := e.process("p")
		p.generation, p.sequence = largest, largest-1
		result, err := p.next(biz.Ready)
		require.NoError(e, err)
		require.EqualValues(e, largest, result.Pod.Generation)
		require.EqualValues(e, largest, result.Pod.Sequence)
		require.Equal(e, result.Pod, e.get(pod))
		q := e.process("q")
		e.requireSuperseded(largest, false, func() (biz.ReportResult, error) { return q.send(largest, biz.Ready) })
	})

	plain := func(e *env, routing biz.Routing) func() (biz.ReportResult, error) {
		return func() (biz.ReportResult, error) {
			return e.Pods.Set(e.Context(), e.pods(), biz.Report{Pod: pod, State: "plain", Routing: routing, TTL: 30, Capacity: biz.NoCapacity})
		}
	}
	for name, row := range map[string]struct {
		ttl   biz.TTL
		after time.Duration // for which reports of a client that names no process change nothing
	}{
		"a ttl": {200, 600 * time.Second}, "no ttl": {biz.Forever, 90 * time.Second},
	} {
		s.test(t, "a client that names no process/"+name, func(e *env) {
			p := e.process("p")
			p.begin(0)
			p.sequence++
			_, err := e.Pods.Set(e.Context(), e.pods(), biz.Report{
				Pod: pod, State: "up", TTL: row.ttl, Capacity: biz.NoCapacity, Instance: "p", Sequence: p.sequence, Generation: p.generation,
			})
			require.NoError(e, err)
			stored := e.get(pod)
			e.pass(row.after - time.Minute)
			late := e.requireLate(plain(e, biz.Shutdown))
			require.Equal(e, stored.Instance, late.Pod.Instance)
			e.pass(time.Minute + time.Millisecond)
			result, err := plain(e, biz.DenyNew)()
			require.NoError(e, err)
			require.True(e, result.Applied)
			require.Empty(e, result.Pod.Instance, "the instance is forgotten")
			require.Zero(e, result.Pod.Sequence)
			require.Equal(e, p.generation, result.Pod.Generation, "the generation stays")

			e.requireLate(func() (biz.ReportResult, error) { return p.send(0, biz.Shutdown) })
			result, err = p.next(biz.Ready)
			require.NoError(e, err)
			require.Equal(e, "p", result.Pod.Instance)
			q := e.process("q")
			q.begin(p.generation)
		})
	}

	s.test(t, "Remove keeps the generation", func(e *env) {
		old, young := e.process("old"), e.process("young")
		old.begin(0)
		young.begin(old.generation)
		previous, err := e.Pods.Remove(e.Context(), e.pods(), pod)
		require.NoError(e, err)
		require.Equal(e, young.generation, previous.Generation)
		_, err = e.Pods.Get(e.Context(), e.pods(), pod)
		require.ErrorIs(e, err, biz.ErrPodNotFound)
		e.requireSuperseded(young.generation, false, func() (biz.ReportResult, error) { return old.next(biz.Shutdown) })
		late := e.requireLate(func() (biz.ReportResult, error) { return young.send(0, biz.Ready) })
		require.Equal(e, young.generation, late.Pod.Generation)
		require.Equal(e, biz.Dead, late.Pod.Liveness)
		_, err = e.Pods.Get(e.Context(), e.pods(), pod)
		require.ErrorIs(e, err, biz.ErrPodNotFound, "a late report does not bring it back")
		result, err := young.next(biz.Ready)
		require.NoError(e, err)
		require.Nil(e, result.Previous)
		require.Equal(e, young.generation, result.Pod.Generation)
	})
	for name, supersedes := range map[string]func(old *process) biz.Generation{
		"knows the generation": func(old *process) biz.Generation { return old.generation },
		"has found no pod":     func(*process) biz.Generation { return 0 },
	} {
		s.test(t, "the next process after Remove/"+name, func(e *env) {
			old, young := e.process("old"), e.process("young")
			old.begin(0)
			_, err := e.Pods.Remove(e.Context(), e.pods(), pod)
			require.NoError(e, err)
			young.begin(supersedes(old))
			require.Greater(e, young.generation, old.generation)
			e.requireSuperseded(young.generation, false, func() (biz.ReportResult, error) { return old.next(biz.Ready) })
		})
	}
	s.test(t, "a client that names no process after Remove", func(e *env) {
		old := e.process("old")
		old.begin(0)
		_, err := e.Pods.Remove(e.Context(), e.pods(), pod)
		require.NoError(e, err)
		result, err := plain(e, biz.Ready)()
		require.NoError(e, err)
		require.True(e, result.Applied)
		require.Equal(e, old.generation, result.Pod.Generation)
	})
	s.test(t, "a burst of processes ends with one", func(e *env) {
		// Each knows that no process has reported.
		results := race(8, func(i int) error {
			p := e.process(string(rune('a' + i)))
			p.sequence = 1
			_, err := p.send(0, biz.Ready)
			return err
		})
		stored := 0
		for _, err := range results {
			if err == nil {
				stored++
			} else {
				require.ErrorAs(e, err, new(*biz.SupersededError))
			}
		}
		require.Equal(e, 1, stored)
	})
}
