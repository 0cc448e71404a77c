// Package observability tests podlink's traces, metrics and log from outside, and the alerts and dashboards of deploy/.
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
