//go:build faults

package faults

import (
	"os"
	"testing"

	podlinktest "podlink/test/kit/podlink"
)

// binary is podlink without patches.
var binary string

func TestMain(m *testing.M) {
	os.Exit(podlinktest.Main(&binary, func() int {
		code := m.Run()
		published.write(os.Stdout)
		return code
	}))
}

// start starts a number of podlinks with the same environment, and waits until they are ready.
func start(t *testing.T, binary string, podlinks int, env ...string) []*podlinktest.Process {
	t.Helper()
	started := make([]*podlinktest.Process, podlinks)
	for i := range started {
		started[i] = podlinktest.Start(t, binary, env...)
		started[i].WaitReady(t)
	}
	return started
}
