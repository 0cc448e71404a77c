//go:build faults

package faults

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	podlinktest "podlink/test/kit/podlink"
	redistest "podlink/test/kit/redis"
)

// retries makes the driver repeat a mutation whose reply was lost.
var retries = podlinktest.Patch{
	File: "internal/rdb/exec.go",
	Old:  "func (c *onceCmd) NoRetry() bool { return true }",
	New:  "func (c *onceCmd) NoRetry() bool { return false }",
}

// retriesOfOurs makes podlink itself repeat it. The driver does not, where it is asked for a single node of a cluster.
var retriesOfOurs = podlinktest.Patch{
	File: "internal/rdb/coalesce.go",
	Old:  "\t\treturn outcome{err: node.Process(ctx, cmd)}\n",
	New: `		err := node.Process(ctx, cmd)
		for n := 0; n < 3 && err != nil && replyError(err) == nil; n++ {
			err = node.Process(ctx, cmd)
		}
		return outcome{err: err}
`,
}

// TestVariantRetries: a build that repeats mutations is found, by what the callers see and by what the servers run.
func TestVariantRetries(t *testing.T) {
	byDriver, byPodlink := variant(t, retries), variant(t, retriesOfOurs)
	t.Run("linearizability", func(t *testing.T) {
		_, found := linearizability(t, byDriver, lostReplies)
		require.NotNil(t, found)
	})
	for mode, repeating := range map[string]string{
		"standalone": byDriver, "sentinel": byDriver, "cluster": byPodlink,
	} {
		t.Run("executions/"+mode, func(t *testing.T) {
			_, more := countExecutions(t, repeating, mode, false)
			require.Positive(t, more)
		})
	}
}

// TestVariantLimits: a build whose calls go on after their deadline, and whose mutations each leave a goroutine behind,
// is found by a pause of Redis.
func TestVariantLimits(t *testing.T) {
	overlong := variant(t,
		podlinktest.Patch{
			File: "internal/rdb/options.go",
			Old:  "ContextTimeoutEnabled: true",
			New:  "ContextTimeoutEnabled: false",
		},
		podlinktest.Patch{
			File: "internal/rdb/options.go",
			Old:  "ReadTimeout:  o.ReadTimeout,",
			New:  "ReadTimeout:  3 * o.ReadTimeout,",
		},
		podlinktest.Patch{
			File: "internal/data/link.go",
			Old:  "(biz.LinkChange, error) {\n\tanswer, change, err := r.one(",
			New:  "(biz.LinkChange, error) {\n\tgo func() { select {} }()\n\tanswer, change, err := r.one(",
		},
	)
	report, _ := linearizability(t, overlong, disturbance{
		faults: 1,
		inject: func(_ *testing.T, r *run, redis *redistest.Server, _ *redistest.Proxy) {
			redis.Pause()
			time.Sleep(2 * time.Second)
			redis.Resume()
			r.injected(1)
		},
	})
	found := strings.Join(report.Violations, "\n")
	require.Contains(t, found, "longer than podlink's timeout")
	require.Contains(t, found, "podlink 0 does not come back to its base level")
	require.Contains(t, found, "podlink 1 does not come back to its base level")
}

// TestVariantScripts: a script that breaks a rule of its own is found without any fault.
func TestVariantScripts(t *testing.T) {
	for name, patches := range map[string][]podlinktest.Patch{
		"a move that leaves the epoch": inEveryScript(t,
			"    pod, epoch = owner, now\n",
			"    pod, epoch = owner, epoch or now\n",
		),
		"a link that is set although one stands": {{
			File: "internal/data/lua/assembled/statefulSetLinkIfAbsent.lua",
			Old:  "if pod then status = 'EXISTING' end",
			New:  "",
		}},
	} {
		t.Run(name, func(t *testing.T) {
			_, found := linearizability(t, variant(t, patches...), undisturbed)
			require.NotNil(t, found)
		})
	}
}

// inEveryScript patches each assembled script that has the text, as a change of the part in lua/lib would.
func inEveryScript(t *testing.T, from, to string) []podlinktest.Patch {
	t.Helper()
	root, err := podlinktest.Root()
	require.NoError(t, err)
	const folder = "internal/data/lua/assembled"
	files, err := os.ReadDir(filepath.Join(root, folder))
	require.NoError(t, err)
	var patches []podlinktest.Patch
	for _, file := range files {
		text, err := os.ReadFile(filepath.Join(root, folder, file.Name()))
		require.NoError(t, err)
		if strings.Contains(string(text), from) {
			patches = append(patches, podlinktest.Patch{File: folder + "/" + file.Name(), Old: from, New: to})
		}
	}
	require.NotEmpty(t, patches, "no script has %q", from)
	return patches
}
