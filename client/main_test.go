package client

import (
	"flag"
	"os"
	"runtime"
	"testing"

	podlinktest "podlink/test/kit/podlink"
)

// binary is podlink, built by the target that users call.
var binary string

func TestMain(m *testing.M) {
	if how, ok := os.LookupEnv(proxiedEnv); ok {
		os.Exit(proxiedMain(how))
	}
	_ = flag.Set("test.parallel", "24") // The parallel tests mostly wait. A flag on the command line overrides it.
	flag.Parse()
	if repeats() {
		pauseSpread = 0
		runtime.GOMAXPROCS(1) // What happens at one moment of virtual time happens in one order.
	}
	os.Exit(podlinktest.Main(&binary, m.Run))
}

// repeats reports whether only simulations run, whose seeds have to repeat exactly.
func repeats() bool {
	seed, limit := flag.Lookup("sim.seed").Value.String(), flag.Lookup("sim.time").Value.String()
	return seed != "0" || limit != "0s" || os.Getenv("PODLINK_SIM_TIME") != ""
}

// start runs podlink until the test ends. Env overrides keys of its configuration.
func start(t *testing.T, env ...string) *podlinktest.Process {
	t.Helper()
	return podlinktest.Start(t, binary, env...)
}

// unhurried lets podlink and its store take the time that they need on a busy machine, in tests that are not about that.
var unhurried = []string{"PODLINK_SERVER_GRPC_TIMEOUT=1m", "PODLINK_SERVER_HTTP_TIMEOUT=1m", "PODLINK_DATA_REDIS_READ_TIMEOUT=30s"}
