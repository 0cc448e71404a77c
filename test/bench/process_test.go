//go:build bench

package bench

import (
	"bytes"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	podlinktest "podlink/test/kit/podlink"
	redistest "podlink/test/kit/redis"
)

// TestProcess measures the start, the memory and the binary of an idle podlink.
func TestProcess(t *testing.T) {
	const name, starts, calls, mega = "podlink", 5, 1000, 1e6
	const start, idle, used, size = 0, 1, 2, 3
	table := &Table{
		ID: "process-idle", Title: "The process",
		Note: fmt.Sprintf("podlink on a Redis. The start is the median of %d.", starts),
		Columns: []string{
			"from start to ready, s", "resident memory once ready, MB",
			fmt.Sprintf("resident memory after %d calls over %d connections, MB", calls, connections), "size of the binary, MB",
		},
	}
	onRedis := podlinktest.OnRedis("standalone", redistest.Start(t).Addr())
	for run := range runs {
		progress(run, "starts of podlink")
		var took Runs
		for range starts {
			process := podlinktest.Start(t, binary, onRedis...)
			process.WaitReady(t)
			took = append(took, time.Since(process.Started).Seconds())
			process.Kill()
		}
		table.add(name, start, took.Median())
		process := podlinktest.Start(t, binary, onRedis...)
		podlink := newSide(t, name, process)
		table.add(name, idle, residentMemory(t, process.PID())/mega)
		fill(t, podlink, calls)
		table.add(name, used, residentMemory(t, process.PID())/mega)
		process.Kill()
		file, err := os.Stat(binary)
		require.NoError(t, err)
		table.add(name, size, float64(file.Size())/mega)
	}
	results.tables(table)
	for column, limit := range []float64{.5, 40, 40, 45} {
		measure, unit, _ := strings.Cut(table.Columns[column], ", ")
		results.target(Target{Measure: measure, Limit: limit, Unit: unit, Runs: table.row(name).Cells[column]})
	}
}

// TestReadings checks cpuTime and residentMemory on this process, whose values are roughly known.
func TestReadings(t *testing.T) {
	const busy = 200 * time.Millisecond
	begin, before := time.Now(), cpuTime(t, os.Getpid())
	for time.Since(begin) < busy {
	}
	used := cpuTime(t, os.Getpid()) - before
	require.Positive(t, used)
	require.Less(t, used, 2*time.Since(begin)*time.Duration(runtime.NumCPU()), "in hundredths of a second")

	ballast := bytes.Repeat([]byte("x"), 16<<20)
	require.Greater(t, residentMemory(t, os.Getpid()), float64(len(ballast)))
	require.Less(t, residentMemory(t, os.Getpid()), 1e9, "in bytes")
}

// cpuTime returns the CPU time of a process so far, which the kernel reports in hundredths of a second.
func cpuTime(t *testing.T, pid int) time.Duration {
	t.Helper()
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	require.NoError(t, err)
	const utime, stime = 11, 12 // counted from the end of the name, which may hold spaces
	fields := bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:])
	ticks := 0
	for _, field := range []int{utime, stime} {
		n, err := strconv.Atoi(string(fields[field]))
		require.NoError(t, err)
		ticks += n
	}
	return time.Duration(ticks) * 10 * time.Millisecond
}

// residentMemory returns the resident memory of a process in bytes.
func residentMemory(t *testing.T, pid int) float64 {
	t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	require.NoError(t, err)
	_, rest, _ := strings.Cut(string(status), "\nVmRSS:")
	text, _, _ := strings.Cut(rest, " kB\n")
	kibibytes, err := strconv.ParseFloat(strings.TrimSpace(text), 64)
	require.NoError(t, err)
	return kibibytes * 1024
}
