package attacks

import (
	"os"
	"testing"

	podlinktest "podlink/test/kit/podlink"
)

// binary is podlink.
var binary string

func TestMain(m *testing.M) {
	if name := os.Getenv(attackVariable); name != "" {
		os.Exit(runAttack(name))
	}
	os.Exit(podlinktest.Main(&binary, m.Run))
}
