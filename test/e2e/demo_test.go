//go:build demo

package e2e

import (
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"podlink/test/kit/proc"
)

// TestDemo runs the chat example, shortened: it ends with an error when one of its promises was broken. It finds a real etcd
// on the PATH, or is told to do without. Its promises are about seconds, so it needs the machine for itself (make test-demo).
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
			for _, promise := range []string{"0 were not at the linked pod", "0 answered messages are missing in the store",
				"killed pod: its rooms were answered for by others within", "frozen pod: its rooms were answered for by others within",
				"drained pod: 0 failed", "rolling restart of all pods: 0 failed",
				"0 times two pods held a room with one epoch"} {
				require.Regexp(t, `(?m)^  kept +.*`+promise, string(out))
			}
			t.Logf("%s", out)
		})
	}
}
