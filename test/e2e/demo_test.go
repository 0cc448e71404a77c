//go:build demo

package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"podlink/test/kit/proc"
)

// TestDemo runs a shorter chat demo, with etcd and Redis and without them, and with certificates and tokens: the demo exits with an
// error if a promise was broken. The promises are about seconds, so it must have the machine to itself (make test-demo).
func TestDemo(t *testing.T) {
	proc.Need(t, "etcd", "etcd-server")
	proc.Need(t, "redis-server", "redis-server")
	chat := filepath.Join(t.TempDir(), "chat")
	build := exec.Command("go", "build", "-o", chat, "./examples/chat")
	build.Dir = root
	out, err := build.CombinedOutput()
	require.NoError(t, err, string(out))
	redis := []string{"Redis away for 4s: 0 users of living pods moved"}
	refused := []string{"access: 11 attempts without the right to it, 0 not refused"}
	for name, row := range map[string]struct {
		path     string // where programs are found
		flags    []string
		promises []string
	}{
		"etcd and Redis": {os.Getenv("PATH"), nil, redis}, "neither": {t.TempDir(), nil, nil},
		"etcd, Redis, and callers who prove who they are": {os.Getenv("PATH"), []string{"-secure"}, append(refused, redis...)},
	} {
		t.Run(name, func(t *testing.T) {
			cmd := exec.Command(chat, append([]string{
				"demo", "-podlink", binary, "-rooms", "150", "-every", "1s", "-ttl", "2s", "-linger", "1s", "-steady", "2s",
			}, row.flags...)...)
			cmd.Dir, cmd.Env = root, append(os.Environ(), "PATH="+row.path)
			out, err := cmd.CombinedOutput()
			require.NoError(t, err, string(out))
			for _, promise := range append([]string{"0 answered by the wrong pod", "0 answered messages missing from the store",
				"killed pod: other pods took over its rooms within", "frozen pod: other pods took over its rooms within",
				"drained pod: 0 failed", "rolling restart of all pods: 0 failed",
				`relocated pod: the job was DONE after .* 0 links \(the list is complete\) and 0 sessions left, 0 failed`,
				`watcher: told of (\d+) of the \d+ rooms`, `watcher: 0 of 150 links differ from podlink's lists`,
				"podlink away for 4s: 0 users of living pods moved", "a second process of chat-1: 0 users of living pods moved",
				"0 times two processes held a room with the same epoch"}, row.promises...) {
				require.Regexp(t, `(?m)^  kept +.*`+promise, string(out))
			}
			t.Logf("%s", out)
		})
	}
}
