package faults

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	podlinktest "podlink/test/kit/podlink"
)

// Names of known-bad builds. The tests that use them say how each fault is found.
const (
	driverRetries   = "the driver retries mutations"
	podlinkRetries  = "podlink retries mutations"
	batchRetries    = "items of a batch are sent again"
	ignoresDeadline = "calls outlive their deadline and leak goroutines"
	staleEpoch      = "a move keeps the epoch"
	overwrites      = "SetLinkedPodIfAbsent overwrites a link"
	twoKeys         = "scripts use two keys"
	impatient       = "a pod is dead as soon as its report has expired"
	noWait          = "WAIT is left out"
	unbounded       = "batches have no bound"
)

// variants returns the patches of each known-bad build. This file has no build tag, so that `make test` finds a patch that no
// longer applies to its source; `make test-faults` takes minutes to find it.
func variants(tb testing.TB) map[string][]podlinktest.Patch {
	tb.Helper()
	return map[string][]podlinktest.Patch{
		driverRetries: {{
			File: "internal/rdb/exec.go",
			Old:  "func (c *onceCmd) NoRetry() bool { return true }",
			New:  "func (c *onceCmd) NoRetry() bool { return false }",
		}},
		// The driver does not retry on a single node of a cluster.
		podlinkRetries: {{
			File: "internal/rdb/coalesce.go",
			Old:  "\t\treturn outcome{err: node.Process(ctx, cmd)}\n",
			New: `		err := node.Process(ctx, cmd)
		for n := 0; n < 3 && err != nil && replyError(err) == nil; n++ {
			err = node.Process(ctx, cmd)
		}
		return outcome{err: err}
`,
		}},
		batchRetries: {{
			File: "internal/rdb/each.go",
			Old:  "o.err != nil && r.elsewhere(o.err)",
			New:  "o.err != nil",
		}},
		ignoresDeadline: {
			{
				File: "internal/rdb/options.go",
				Old:  "ContextTimeoutEnabled: true",
				New:  "ContextTimeoutEnabled: false",
			},
			{
				File: "internal/rdb/options.go",
				Old:  " o.ReadTimeout,",
				New:  " 3 * o.ReadTimeout,",
			},
			{
				File: "internal/data/link.go",
				Old:  "step linkStep, key biz.LinkKey) (biz.LinkChange, error) {\n",
				New:  "step linkStep, key biz.LinkKey) (biz.LinkChange, error) {\n\tgo func() { select {} }()\n",
			},
		},
		staleEpoch: inEveryScript(tb,
			"    pod, epoch, claim = owner, now, claimant\n",
			"    pod, epoch, claim = owner, epoch or now, claimant\n",
		),
		overwrites: {{
			File: "internal/data/lua/assembled/statefulSetLinkIfAbsent.lua",
			Old:  "if pod then status = 'EXISTING' end",
			New:  "",
		}},
		twoKeys: {
			{
				File: "internal/rdb/exec.go",
				Old:  "\t\"sync/atomic\"\n",
				New:  "\t\"strings\"\n\t\"sync/atomic\"\n",
			},
			{
				File: "internal/rdb/exec.go",
				Old:  "full := append([]any{command, text, 1, key}, args...)",
				New: `shadow := "shadow:" + key
	if !strings.Contains(key, "{") {
		shadow = "shadow:{" + key + "}"
	}
	full := append([]any{command, text, 2, key, shadow}, args...)`,
			},
		},
		impatient: append(inEveryScript(tb,
			"    if now <= at + limit then return LIVE end\n    return IN_DOUBT\n",
			"    if now <= at + limit then return LIVE end\n    return DEAD\n",
		), podlinktest.Patch{
			File: "internal/biz/liveness.go",
			Old:  "case age > limit && (",
			New:  "case nowMs > reportMs+limit || age > limit && (",
		}),
		unbounded: {{
			File: "internal/rdb/coalesce.go",
			Old:  "n >= c.batch || total > c.cost",
			New:  "total < 0",
		}},
		noWait: {
			{
				File: "internal/rdb/replicate.go",
				Old:  `redis.NewIntCmd(ctx, "wait", r.replicas, r.timeout.Milliseconds())`,
				New:  `redis.NewIntCmd(ctx, "wait", 0, 1)`,
			},
			{
				File: "internal/rdb/replicate.go",
				Old:  "wait.Val() < int64(r.replicas)",
				New:  "wait.Val() < 0",
			},
		},
	}
}

// inEveryScript patches each assembled script with the text, like a change of the fragment in lua/lib would.
func inEveryScript(tb testing.TB, from, to string) []podlinktest.Patch {
	tb.Helper()
	root, err := podlinktest.Root()
	require.NoError(tb, err)
	const folder = "internal/data/lua/assembled"
	files, err := os.ReadDir(filepath.Join(root, folder))
	require.NoError(tb, err)
	var patches []podlinktest.Patch
	for _, file := range files {
		text, err := os.ReadFile(filepath.Join(root, folder, file.Name()))
		require.NoError(tb, err)
		if strings.Contains(string(text), from) {
			patches = append(patches, podlinktest.Patch{File: folder + "/" + file.Name(), Old: from, New: to})
		}
	}
	require.NotEmpty(tb, patches, "no script has %q", from)
	return patches
}

// TestPatchesApply fails if a patch no longer applies to its source. It builds nothing.
func TestPatchesApply(t *testing.T) {
	for name, patches := range variants(t) {
		t.Run(name, func(t *testing.T) { podlinktest.CheckPatches(t, patches...) })
	}
}
