// Package e2e tests the podlink binary from outside, as its users run it.
package e2e

import (
	"os"
	"testing"

	podlinktest "podlink/test/kit/podlink"
	redistest "podlink/test/kit/redis"
)

// root is the top of the repository, as seen from this package.
const root = "../.."

// binary is podlink, built by the target that users call.
var binary string

func TestMain(m *testing.M) { os.Exit(podlinktest.Main(&binary, m.Run)) }

// start runs podlink until the test ends. Env overrides keys.
func start(t *testing.T, env ...string) *podlinktest.Process {
	t.Helper()
	return podlinktest.Start(t, binary, env...)
}

// onRedis makes podlink use a Redis.
func onRedis(redis *redistest.Server) []string {
	return podlinktest.OnRedis("standalone", redis.Addr())
}
