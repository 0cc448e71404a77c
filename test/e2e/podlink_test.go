// Package e2e tests the podlink binary from outside, run as users run it.
package e2e

import (
	"os"
	"testing"

	podlinktest "podlink/test/kit/podlink"
	redistest "podlink/test/kit/redis"
)

// root is the path from this package to the root of the repository.
const root = "../.."

// binary is podlink, built by make build.
var binary string

func TestMain(m *testing.M) { os.Exit(podlinktest.Main(&binary, m.Run)) }

// start runs podlink until the test ends. env overrides configuration keys.
func start(t *testing.T, env ...string) *podlinktest.Process {
	t.Helper()
	return podlinktest.Start(t, binary, env...)
}

// onRedis returns the environment of a podlink on a Redis.
func onRedis(redis *redistest.Server) []string {
	return podlinktest.OnRedis("standalone", redis.Addr())
}
