//go:build bench

package bench

import (
	"fmt"
	"os"
	"testing"

	podlinktest "podlink/test/kit/podlink"
)

// binary is the unchanged podlink.
var binary string

func TestMain(m *testing.M) {
	out := os.Getenv("PODLINK_BENCH_OUT")
	for _, name := range []string{"PODLINK_BENCH_OUT", "PODLINK_BENCH_QUICK", "PODLINK_BENCH_RUNS"} {
		_ = os.Unsetenv(name) // A podlink that got it would not start: it names no key.
	}
	os.Exit(podlinktest.Main(&binary, func() int {
		code := m.Run()
		if err := report(os.Stdout, out, code == 0); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		return code
	}))
}
