// Package variants has known-bad builds of podlink. A suite that guards a promise must find the builds that break it: else it proves
// nothing.
package variants

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	podlinktest "podlink/test/kit/podlink"
)

// Names of known-bad builds. The tests that use them say how each fault is found.
const (
	DriverRetries   = "the driver retries mutations"
	PodlinkRetries  = "podlink retries mutations"
	BatchRetries    = "items of a batch are sent again"
	IgnoresDeadline = "calls outlive their deadline and leak goroutines"
	StaleEpoch      = "a move keeps the epoch"
	Overwrites      = "SetLinkedPodIfAbsent overwrites a link"
	TwoKeys         = "scripts use two keys"
	Impatient       = "a pod is dead as soon as its report has expired"
	NoWait          = "WAIT is left out"
	Unbounded       = "batches have no bound"
	LeaseForAll     = "a job needs no lease"
	SilentDeath     = "a podlink that has died makes no gap"
	AnyOrder        = "the index takes updates in any order"
	SilentlySlow    = "a slow watcher is not told what it has lost"

	HalfOpen      = "calls may be open without number"
	WatchFlood    = "a caller may have watches without number"
	ForeignPages  = "web pages of other origins are served"
	HeldUnknown   = "calls of methods that only Kratos knows are held open"
	LateMessages  = "a message that comes late is taken from whoever sent its headers"
	EmptyKeys     = "a key without a value in the policy counts as absent"
	ForceIsBind   = "SetLinkedPod without an epoch needs bind only"
	AnyPod        = "a pod may report for any pod"
	AnyLink       = "a pod may change the links of other pods"
	RevokedTokens = "tokens that were verified stay valid"
	BrokenFiles   = "TLS files that can't be used replace the former ones"
)

// Patches returns the patches of each known-bad build.
func Patches(tb testing.TB) map[string][]podlinktest.Patch {
	tb.Helper()
	return map[string][]podlinktest.Patch{
		DriverRetries: {{
			File: "internal/rdb/exec.go",
			Old:  "func (c *onceCmd) NoRetry() bool { return true }",
			New:  "func (c *onceCmd) NoRetry() bool { return false }",
		}},
		// The driver does not retry on a single node of a cluster.
		PodlinkRetries: {{
			File: "internal/rdb/coalesce.go",
			Old:  "\t\treturn outcome{err: node.Process(ctx, cmd)}\n",
			New: `		err := node.Process(ctx, cmd)
		for n := 0; n < 3 && err != nil && replyError(err) == nil; n++ {
			err = node.Process(ctx, cmd)
		}
		return outcome{err: err}
`,
		}},
		BatchRetries: {{
			File: "internal/rdb/each.go",
			Old:  "o.err != nil && r.elsewhere(o.err)",
			New:  "o.err != nil",
		}},
		IgnoresDeadline: {
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
				Old:  "step linkStep) (biz.LinkChange, error) {\n",
				New:  "step linkStep) (biz.LinkChange, error) {\n\tgo func() { select {} }()\n",
			},
		},
		StaleEpoch: inEveryScript(tb,
			"    pod, epoch, claim = owner, now, claimant\n",
			"    pod, epoch, claim = owner, epoch or now, claimant\n",
		),
		Overwrites: {{
			File: "internal/data/lua/assembled/statefulSetLinkIfAbsent.lua",
			Old:  "if pod then status = 'EXISTING' end",
			New:  "",
		}},
		TwoKeys: {
			{
				File: "internal/rdb/exec.go",
				Old:  "\t\"sync/atomic\"\n",
				New:  "\t\"strings\"\n\t\"sync/atomic\"\n",
			},
			{
				File: "internal/rdb/exec.go",
				Old:  "full := append(append(make([]any, 0, 4+len(args)), command, text, 1, key), args...)",
				New: `shadow := "shadow:" + key
	if !strings.Contains(key, "{") {
		shadow = "shadow:{" + key + "}"
	}
	full := append([]any{command, text, 2, key, shadow}, args...)`,
			},
		},
		Impatient: append(inEveryScript(tb,
			"    if now <= at + limit then return LIVE end\n    return IN_DOUBT\n",
			"    if now <= at + limit then return LIVE end\n    return DEAD\n",
		), podlinktest.Patch{
			File: "internal/biz/liveness.go",
			Old:  "case age > limit && (",
			New:  "case nowMs > reportMs+limit || age > limit && (",
		}),
		Unbounded: {{
			File: "internal/rdb/coalesce.go",
			Old:  "n >= c.batch || total > c.cost",
			New:  "total < 0",
		}},
		LeaseForAll: {
			{
				File: "internal/data/lua/assembled/statefulTakeJob.lua",
				Old:  "if tonumber(expiry) > now then return {'BUSY'} end\n",
			},
			{
				File: "internal/data/lua/assembled/statefulSaveJob.lua",
				Old:  "if not spec or over or lease ~= ARGV[1] then return {'LOST'} end\n",
			},
			{
				File: "internal/data/selftest.go", // podlink would not be ready.
				Old:  "\texpect(scriptSaveJob, \"LOST\", 1, \"running\", \"\", 1000),\n",
			},
		},
		SilentDeath: {{
			File: "internal/biz/writers.go",
			Old:  "if w.findDead() {",
			New:  "if w.findDead(); false {",
		}},
		AnyOrder: inEveryScript(tb,
			"if #given > #epoch or #given == #epoch and given >= epoch then latest[field] = op == '+' and value end\n",
			"latest[field] = op == '+' and value\n",
		),
		SilentlySlow: {{
			File: "internal/biz/watcher.go",
			Old:  "m = &WatchMessage{Resync: ResyncSlow, Token: m.Token, entries: 1}",
			New:  "m = &WatchMessage{Token: m.Token, entries: 1}",
		}},
		HalfOpen: {
			{
				File: "internal/server/grpc.go",
				Old:  "\t\t\tgrpc.MaxConcurrentStreams(uint32(c.GetGrpc().GetMaxStreams())),\n",
			},
			{
				File: "internal/server/callguard.go",
				Old:  "from == nil || from.peer.admit(g.mostCalls)",
				New:  "from == nil || from.peer.admit(1 << 40)",
			},
		},
		WatchFlood: {{
			File: "internal/server/watchlimit.go",
			Old:  "if l.open[key] >= l.most {",
			New:  "if false {",
		}},
		ForeignPages: {{
			File: "internal/server/origin.go",
			Old:  "if o.crossing.Check(r) != nil {",
			New:  "if false {",
		}},
		HeldUnknown: {{
			File: "internal/server/callguard.go",
			Old:  "\t\t\tfrom.close()\n\t\t\treturn ctx, nil // The interceptor refuses it, should its message still come.\n",
			New:  "\t\t\treturn ctx, nil\n",
		}},
		LateMessages: {{
			File: "internal/server/authenticate.go",
			Old:  "if d.access == nil || d.err != nil || !d.access.late(d.caller) {",
			New:  "if true {",
		}},
		EmptyKeys: {{
			File: "internal/auth/policyfile.go",
			Old:  "case empty != 0:",
			New:  "case empty < 0:",
		}},
		ForceIsBind: {{
			File: "internal/server/authorize.go",
			Old:  "\traise(need, auth.Bind)\n\tif expected == nil {",
			New:  "\traise(need, auth.Bind)\n\tif false {",
		}},
		AnyPod: {{
			File: "internal/auth/decide.go",
			Old:  "return own, proven && need.Pods.only(own)",
			New:  "return own, proven",
		}},
		AnyLink: {{
			File: "internal/auth/decide.go",
			Old:  "case found.pod && need.Right == Bind:",
			New:  "case false:",
		}},
		RevokedTokens: {{
			File: "internal/auth/jwt.go",
			Old:  "return v.generation == v.source.Load() && now.Before(v.until)",
			New:  "return now.Before(v.until)",
		}},
		BrokenFiles: {{
			File: "internal/certs/source.go",
			Old:  "\tbefore := s.failed\n",
			New:  "\ts.current.Store(&material{pair: &tls.Certificate{}, pool: x509.NewCertPool(), notAfter: now})\n\tbefore := s.failed\n",
		}},
		NoWait: {
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

// Build builds one of the variants, and returns the binary's path.
func Build(tb testing.TB, name string) string {
	tb.Helper()
	patches := Patches(tb)[name]
	require.NotEmpty(tb, patches, "unknown variant %q", name)
	binary, err := podlinktest.Build(tb.TempDir(), patches...)
	require.NoError(tb, err)
	return binary
}

// Finder is a test that fails for a variant, with a text.
type Finder struct{ Test, Text string }

// RequireFound runs each variant's test in a separate process, and fails unless that test fails with its text. The tests are those of the
// calling package, whose TestMain is podlinktest.Main.
func RequireFound(t *testing.T, finders map[string]Finder) {
	t.Helper()
	for name, finder := range finders {
		t.Run(name, func(t *testing.T) { finder.requireFailure(t, name) })
	}
}

func (f Finder) requireFailure(t *testing.T, name string) {
	t.Helper()
	run := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^"+f.Test+"$", "-test.timeout=5m")
	run.Env = append(os.Environ(), podlinktest.BinaryVariable+"="+Build(t, name))
	out, err := run.CombinedOutput()
	require.Error(t, err, "%s has passed", f.Test)
	require.Contains(t, string(out), "--- FAIL: "+f.Test)
	require.Contains(t, string(out), f.Text)
}
