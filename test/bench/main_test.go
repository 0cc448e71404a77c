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
	os.Exit(podlinktest.Main(&binary, func() int {
		code := m.Run()
		if err := report(os.Stdout, os.Getenv("PODLINK_BENCH_OUT"), code == 0); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		return code
	}))
}
