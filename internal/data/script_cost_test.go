//go:build bench

package data

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"text/tabwriter"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	redistest "podlink/test/kit/redis"
)

// costCalls is the number of calls per case: enough to average out costs of every fiftieth call, such as garbage
// collection.
const costCalls = 300

// TestScriptCost counts the instructions of Redis per call of each script, case by case. Unlike times, they hardly vary
// between runs, so they show the cost of a change. `make bench-scripts` runs it.
func TestScriptCost(t *testing.T) {
	counted := startCounted(t)
	table := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "script\tcase\tinstructions per call\t")
	for _, sc := range scripts {
		for _, run := range scriptRuns {
			if run.script == sc {
				fmt.Fprintf(table, "%s\t%s\t%d\t\n", sc.Name, run.name, counted.cost(t, run))
			}
		}
	}
	require.NoError(t, table.Flush())
}

// countedServer is a redis-server under callgrind, which counts only the instructions of EVALSHA and writes a profile at
// every ECHO.
type countedServer struct {
	client *redis.Client
	output string // the profiles are files with this name and a numeric suffix
	dumps  int
}

func startCounted(t *testing.T) *countedServer {
	t.Helper()
	valgrind, err := exec.LookPath("valgrind")
	require.NoError(t, err, "install valgrind, or run make bench-scripts, which does")
	server, err := exec.LookPath("redis-server")
	require.NoError(t, err, "install redis-server, or run make bench-scripts, which does")
	dir := t.TempDir()
	s := &countedServer{output: filepath.Join(dir, "profile")}
	// redistest starts the redis-server that comes first on PATH.
	wrapper := fmt.Sprintf("#!/bin/sh\nexec '%s' --tool=callgrind --collect-atstart=no --toggle-collect=evalShaCommand "+
		"--dump-before=echoCommand '--callgrind-out-file=%s' '%s' \"$@\"\n", valgrind, s.output, server)
	require.NoError(t, os.WriteFile(filepath.Join(dir, "redis-server"), []byte(wrapper), 0o700))
	t.Setenv("PATH", dir+string(os.PathListSeparator)+os.Getenv("PATH"))
	options := *redistest.Start(t).Client(t).Options()
	options.ReadTimeout = time.Minute // Callgrind makes it about fifty times slower.
	s.client = redis.NewClient(&options)
	t.Cleanup(func() { _ = s.client.Close() })
	return s
}

// cost returns the instructions per call of the run, on keys prepared by its before steps.
func (s *countedServer) cost(t *testing.T, run scriptRun) int {
	t.Helper()
	require.NoError(t, s.client.FlushDB(t.Context()).Err())
	key := func(i int) string { return fmt.Sprintf("podlink:%s:prod:user:%03d", run.script.KeyKind, i) }
	replies := make([][]string, costCalls)
	for _, step := range run.before {
		if step.script == nil {
			time.Sleep(1100 * time.Millisecond)
			continue
		}
		for i := range costCalls {
			// By EVAL, which is not counted.
			value, err := s.client.Eval(t.Context(), step.script.Source(), []string{key(i)}, resolve(step.args, replies[i])...).Result()
			require.NoError(t, err)
			replies[i] = append(replies[i], render(value))
		}
	}
	require.NoError(t, s.client.ScriptLoad(t.Context(), run.script.Source()).Err())
	s.count(t)
	for i := range costCalls {
		value, err := s.client.EvalSha(t.Context(), scriptSHA(run.script), []string{key(i)}, resolve(run.args, replies[i])...).Result()
		require.NoError(t, err)
		require.Equal(t, status(run.reply), status(render(value)), "%s %s", run.script.Name, run.name)
	}
	return s.count(t) / costCalls
}

var totalsPattern = regexp.MustCompile(`(?m)^totals: (\d+)$`)

// count returns the instructions since the last count.
func (s *countedServer) count(t *testing.T) int {
	t.Helper()
	require.NoError(t, s.client.Echo(t.Context(), "count").Err())
	s.dumps++
	profile, err := os.ReadFile(s.output + "." + strconv.Itoa(s.dumps))
	require.NoError(t, err)
	totals := totalsPattern.FindStringSubmatch(string(profile))
	require.NotNil(t, totals, "callgrind has written no totals: %s", strings.TrimSpace(string(profile)))
	instructions, err := strconv.Atoi(totals[1])
	require.NoError(t, err)
	return instructions
}
