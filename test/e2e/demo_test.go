//go:build demo

package e2e

import (
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"podlink/test/kit/proc"
)

// TestDemo runs a shorter chat demo, with etcd and with a static list of pods: the demo exits with an error if a promise was
// broken. The promises are about seconds, so it must have the machine to itself (make test-demo).
func TestDemo(t *testing.T) {
	proc.Need(t, "etcd", "etcd-server")
	chat := filepath.Join(t.TempDir(), "chat")
	build := exec.Command("go", "build", "-o", chat, "./examples/chat")
	build.Dir = root
	out, err := build.CombinedOutput()
	require.NoError(t, err, string(out))
	for name, args := range map[string][]string{"etcd": nil, "static list": {"-static"}} {
		t.Run(name, func(t *testing.T) {
			cmd := exec.Command(chat, append([]string{"demo", "-podlink", binary,
				"-rooms", "150", "-every", "1s", "-ttl", "2s", "-linger", "1s", "-steady", "2s"}, args...)...)
			cmd.Dir = root
			out, err := cmd.CombinedOutput()
			require.NoError(t, err, string(out))
			for _, promise := range []string{"0 answered by the wrong pod", "0 answered messages missing from the store",
				"killed pod: other pods took over its rooms within", "frozen pod: other pods took over its rooms within",
				"drained pod: 0 failed", "rolling restart of all pods: 0 failed",
				"0 times two pods held a room with the same epoch"} {
				require.Regexp(t, `(?m)^  kept +.*`+promise, string(out))
			}
			t.Logf("%s", out)
		})
	}
}
