// Package observability tests from outside what podlink tells of itself, in its traces, its metrics and its log, and what
// deploy/ makes of it.
package observability

import (
	"os"
	"testing"

	podlinktest "podlink/test/kit/podlink"
)

var binary string

func TestMain(m *testing.M) {
	os.Exit(podlinktest.Main(&binary, m.Run))
}
