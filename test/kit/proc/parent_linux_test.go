package proc

import (
	"bytes"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// gone reports whether a process has exited. It may not have been reaped.
func gone(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err != nil || bytes.Contains(stat, []byte(") Z "))
}

// TestNoOrphans: processes don't survive a test binary that was killed.
func TestNoOrphans(t *testing.T) {
	if os.Getenv("KIT_PARENT") != "" { // In the binary that is killed.
		fmt.Printf("child %d\n", Start(t, shell("exec sleep 600")).PID())
		select {}
	}
	parent := Start(t, Command{Program: os.Args[0], Args: []string{"-test.run=^TestNoOrphans$"}, Env: []string{"KIT_PARENT=1"}})
	child, err := strconv.Atoi(parent.Log.Wait(t, `child (\d+)\n`))
	require.NoError(t, err)
	require.False(t, gone(child))
	parent.Kill()
	require.Eventually(t, func() bool { return gone(child) }, soon, time.Millisecond)
}

// TestThreadThatEnds: a process survives the thread that called Start.
func TestThreadThatEnds(t *testing.T) {
	started := make(chan *Process)
	go func() {
		runtime.LockOSThread() // Without an unlock, the thread ends with the goroutine.
		started <- Start(t, shell("exec sleep 600"))
	}()
	p := <-started
	for range 20 {
		runtime.GC() // Threads come and go.
		time.Sleep(5 * time.Millisecond)
	}
	require.False(t, gone(p.PID()))
}
