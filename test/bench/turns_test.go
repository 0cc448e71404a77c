//go:build bench

package bench

import (
	"bufio"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// turnOperations maps the names of operations in tools/benchcompare to acts. The names on the left must not change: the tool
// compares revisions by them.
var turnOperations = map[string]string{
	"Get":               "Get",
	"Set":               "Set",
	"SetIfAbsent":       "SetIfAbsent",
	"Compute, standing": computeStanding,
	"Compute, new":      "Compute's last step",
}

// init serves tools/benchcompare instead of running the tests, if PODLINK_BENCH_TURNS is set. TestMain would be too late: it
// builds podlink, which is not needed here. The tool also compiles this file into older revisions, so it imports nothing of
// podlink and uses little of this package.
func init() {
	if os.Getenv("PODLINK_BENCH_TURNS") == "" {
		return
	}
	everything := func(_, _ string) (bool, error) { return true, nil }
	testing.Main(everything, []testing.InternalTest{{Name: "Turns", F: serveTurns}}, nil, nil)
}

// serveTurns answers requests on standard input until its end: "CALLERS NANOSECONDS OPERATION" makes that many callers
// repeat the operation for that long. The answer is "ok CALLS NANOSECONDS CPU-NANOSECONDS".
func serveTurns(t *testing.T) {
	r := newRig(t)
	rivals := make(map[string]*rival)
	standing := false
	fmt.Println("ready")
	for requests := bufio.NewScanner(os.Stdin); requests.Scan(); {
		var callers int
		var nanoseconds int64
		_, err := fmt.Sscanf(requests.Text(), "%d %d", &callers, &nanoseconds)
		require.NoError(t, err, requests.Text())
		operation := strings.SplitN(requests.Text(), " ", 3)[2]
		if rivals[operation] == nil {
			acts := r.acts()
			at := slices.IndexFunc(acts, func(a act) bool { return a.name == turnOperations[operation] })
			require.GreaterOrEqual(t, at, 0, operation)
			rivals[operation] = &acts[at].rival
		}
		rival := rivals[operation]
		if rival.fresh == nil && !standing {
			r.stand(t)
		}
		standing = rival.fresh == nil
		m := rival.run(t, callers, time.Duration(nanoseconds))
		fmt.Println("ok", m.calls, m.took.Nanoseconds(), m.cpu.Nanoseconds())
	}
}
