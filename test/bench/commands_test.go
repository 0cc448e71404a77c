//go:build bench

package bench

import (
	"bufio"
	"cmp"
	"context"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"podlink/internal/biz"
)

// cycle is a sequence of calls on one link that restores the initial state, so that it can be repeated.
type cycle struct {
	name  string
	calls []func(ctx context.Context) error
}

// cycles cover every operation, in a state in which it has an effect.
func (r *rig) cycles() []cycle {
	type call = func(ctx context.Context) error
	link, game := linkOf(uid(0)), biz.ServiceKey{Namespace: namespace, Service: service}
	set := func(pod biz.PodID) call {
		return func(ctx context.Context) error {
			return applied(r.links.Set(ctx, link, pod, biz.Forever, biz.SetTerms{}))
		}
	}
	trySet := func(pod biz.PodID, ttl biz.TTL) call {
		return func(ctx context.Context) error { return applied(r.links.TrySet(ctx, link, pod, ttl, nil)) }
	}
	setIfAbsent := func(ctx context.Context) error {
		return applied(r.links.SetIfAbsent(ctx, link, 1, biz.Forever, biz.SetTerms{}))
	}
	remove := func(ctx context.Context) error { return applied(r.links.Remove(ctx, link, 0, biz.RemoveTerms{})) }
	removeWithID := func(ctx context.Context) error { return applied(r.links.RemoveWithID(ctx, link, 1, 0)) }
	return []cycle{
		{"Get", []call{func(ctx context.Context) error { return linkExists(r.links.Get(ctx, link)) }}},
		{"GetIfPersist", []call{func(ctx context.Context) error { return linkExists(r.links.GetIfPersist(ctx, link)) }}},
		{"List, 1 link", []call{func(ctx context.Context) error { return second(r.links.List(ctx, namespace, link.UID)) }}},
		{computeStanding, []call{func(ctx context.Context) error { return r.computeStanding(ctx, link) }}},
		{"Set, Set", []call{set(1), set(2)}},
		{"Remove, SetIfAbsent", []call{remove, setIfAbsent}},
		{"Remove, TrySet", []call{remove, trySet(1, biz.Forever)}},
		{"TrySet, temporary, RemoveWithID", []call{trySet(1, 600), removeWithID}},
		{"GetServicePod", []call{func(ctx context.Context) error { return second(r.pods.Get(ctx, game, 1)) }}},
		{"SetServiceState", []call{func(ctx context.Context) error {
			_, err := r.pods.Set(ctx, game, biz.Report{Pod: 1, State: "up", TTL: biz.Forever})
			return err
		}}},
	}
}

// TestOneCaller compares podlink with the driver for a single caller: each operation with exactly the commands that it sends.
func TestOneCaller(t *testing.T) {
	const podlinkP50, driverP50, ratio = 0, 1, 2
	table := &Table{
		ID: "data-one-caller", Title: "One caller",
		Note: "The median latency of a single caller in podlink's data layer, and of the same commands with the same " +
			"arguments sent by the driver alone. For a sequence it is the mean of its calls.",
		Columns: []string{"podlink, µs", "the driver alone, µs", "podlink's, of it"},
	}
	r := newRig(t)
	for _, c := range r.cycles() {
		r.stand(t)
		if strings.HasPrefix(c.name, "TrySet") {
			require.NoError(t, second(r.links.Remove(t.Context(), linkOf(uid(0)), 0, biz.RemoveTerms{})))
		}
		podlink := func(ctx context.Context) error {
			for _, call := range c.calls {
				if err := call(ctx); err != nil {
					return err
				}
			}
			return nil
		}
		require.NoError(t, podlink(t.Context()), c.name)
		commands := r.sent(t, func() { require.NoError(t, podlink(t.Context()), c.name) })
		driver := func(ctx context.Context) error {
			for _, command := range commands {
				if err := r.plain.Do(ctx, command...).Err(); err != nil {
					return err
				}
			}
			return nil
		}
		for run := range runs {
			progress(run, "one caller, %s", c.name)
			var took [2]float64
			for i, l := range alternate(t, time.Duration(turns())*slice(), podlink, driver) {
				took[i] = l.percentiles(.5)[0] * 1000 / float64(len(c.calls))
			}
			table.add(c.name, podlinkP50, took[0])
			table.add(c.name, driverP50, took[1])
			table.add(c.name, ratio, took[0]/took[1])
		}
	}
	results.tables(table)
	worst := table.worst(ratio)
	results.target(Target{
		Measure: "One caller: median latency, of the same commands by the driver alone; the worst: " + worst.Name,
		Limit:   1.15, Runs: worst.Cells[ratio],
	})
}

// worst returns the row with the largest median in a column.
func (t *Table) worst(column int) Row {
	return slices.MaxFunc(t.Rows, func(a, b Row) int {
		return cmp.Compare(a.Cells[column].Median(), b.Cells[column].Median())
	})
}

// sent returns the commands that do sends, without those called by scripts.
func (r *rig) sent(t *testing.T, do func()) [][]any {
	t.Helper()
	conn, err := net.Dial("tcp", r.server.Addr())
	require.NoError(t, err)
	defer conn.Close()
	require.NoError(t, conn.SetDeadline(time.Now().Add(driverTimeout)))
	_, err = fmt.Fprint(conn, "MONITOR\r\n")
	require.NoError(t, err)
	lines := bufio.NewReader(conn)
	line, err := lines.ReadString('\n')
	require.NoError(t, err)
	require.Equal(t, "+OK\r\n", line)
	do()
	const end = "that was all"
	require.NoError(t, r.plain.Echo(t.Context(), end).Err())
	var commands [][]any
	for {
		line, err := lines.ReadString('\n')
		require.NoError(t, err)
		_, quoted, _ := strings.Cut(line, "] ")
		command, err := unquote(quoted)
		require.NoError(t, err, line)
		switch {
		case strings.Contains(line, " lua] "):
		case slices.Contains(command, any(end)):
			return commands
		default:
			commands = append(commands, command)
		}
	}
}

// unquote reads the arguments of a command as MONITOR writes them.
func unquote(line string) ([]any, error) {
	var args []any
	for line = strings.TrimSpace(line); line != ""; line = strings.TrimSpace(line) {
		quoted, err := strconv.QuotedPrefix(line)
		if err != nil {
			return nil, err
		}
		arg, err := strconv.Unquote(quoted)
		if err != nil {
			return nil, err
		}
		args, line = append(args, arg), line[len(quoted):]
	}
	return args, nil
}

// TestRedisTime compares the time that Redis itself spends on a call.
func TestRedisTime(t *testing.T) {
	const callers = 16
	const spent, ofReads, ofMutations = 0, 1, 2
	table := &Table{
		ID: "data-redis-time", Title: "Redis time per call",
		Note: "From the command statistics of Redis: the execution time of a call, without network and protocol. A script's " +
			"time includes the commands it calls. A mutation is compared with the predecessors' on an existing link, or " +
			"on a new one.",
		Columns: []string{"Redis time, µs", "of the predecessors' GET", "of the predecessors' EVAL"},
	}
	r := newRig(t)
	contenders := r.readers()
	for _, links := range []struct {
		name  string
		fresh func(t *testing.T)
	}{{", standing link", nil}, {", new link", r.flush}} {
		for _, writer := range r.writers(links.fresh) {
			writer.name += links.name
			contenders = append(contenders, writer)
		}
	}
	acts := slices.DeleteFunc(r.acts(), func(a act) bool { return a.name == computeStanding }) // It has several commands.
	for _, act := range acts {
		contenders = append(contenders, act.rival)
	}
	for run := range runs {
		progress(run, "Redis time per call")
		perCall := r.redisTime(t, callers, contenders)
		for _, c := range contenders {
			table.add(c.name, spent, perCall[c.name])
		}
		for _, act := range acts {
			switch act.effect {
			case reading:
				table.add(act.name, ofReads, perCall[act.name]/perCall[plainGet])
			case changing:
				table.add(act.name, ofMutations, perCall[act.name]/perCall[predecessorsE+", standing link"])
			case creating:
				table.add(act.name, ofMutations, perCall[act.name]/perCall[predecessorsE+", new link"])
			case choosing:
			}
		}
	}
	results.tables(table)
	worst := table.worst(ofMutations)
	results.target(Target{
		Measure: "Redis time per mutation, of the predecessors' EVAL; the worst: " + worst.Name,
		Limit:   1, Runs: worst.Cells[ofMutations],
	})
}

// redisTime returns the time that Redis spends on a call of each rival, in microseconds.
func (r *rig) redisTime(t *testing.T, callers int, rivals []rival) map[string]float64 {
	t.Helper()
	calls, spent := map[string]int{}, map[string]time.Duration{}
	// Rivals that flush all links come last, after those that need them.
	rivals = slices.Concat(
		slices.DeleteFunc(slices.Clone(rivals), func(r rival) bool { return r.fresh != nil }),
		slices.DeleteFunc(slices.Clone(rivals), func(r rival) bool { return r.fresh == nil }),
	)
	for range fine().turns {
		r.stand(t)
		for i := range rivals {
			require.NoError(t, r.plain.ConfigResetStat(t.Context()).Err())
			m := rivals[i].run(t, callers, fine().slice)
			calls[rivals[i].name] += m.calls
			spent[rivals[i].name] += commandTime(t, r.plain)
		}
	}
	perCall := map[string]float64{}
	for name, n := range calls {
		perCall[name] = float64(spent[name]) / float64(time.Microsecond) / float64(n)
	}
	return perCall
}
