//go:build sim

package sim

import (
	"fmt"
	"os"
	"testing"

	podlinktest "podlink/test/kit/podlink"
)

// binary is podlink.
var binary string

// TestMain runs the tests, or a pod: the test binary is the program of the pods, too.
func TestMain(m *testing.M) {
	if text := os.Getenv(podVariable); text != "" {
		if err := runPod(text); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(podlinktest.Main(&binary, m.Run))
}
