package e2e

import (
	"crypto/sha256"
	"fmt"
	"strings"
	"testing"

	podlinktest "podlink/test/kit/podlink"
)

// secret is the static token of a caller, as long as tokens must be.
func secret(name string) string { return name + "-" + strings.Repeat("0123456789abcdef", 4) }

// texts are a tokens file and a policy.
type texts struct{ tokens, policy string }

// guardTexts returns the files for callers with static tokens. The guest has no rule.
func guardTexts() texts {
	files := texts{policy: "rules:\n"}
	for name, row := range map[string]struct{ pod, rule string }{
		"guest": {}, "reader": {"", "role: reader, " + game}, "caller": {"", "role: caller, " + game}, "operator": {"", "role: operator, " + game},
		"pod": {"chat-2", chatPod}, "another-pod": {"chat-3", chatPod}, "admin": {"", `role: admin, namespaces: ["*"], services: ["*"]`},
	} {
		files.tokens += fmt.Sprintf("- {name: %s, sha256: %x, pod: %q, not_after: 2099-01-01}\n", name, sha256.Sum256([]byte(secret(name))), row.pod)
		if row.rule != "" {
			files.policy += fmt.Sprintf("  - {who: [\"token:%s\"], %s}\n", name, row.rule)
		}
	}
	return files
}

// guardedPodlink starts podlink on loopback, without TLS, with those callers.
func guardedPodlink(t *testing.T, env ...string) *podlinktest.Process {
	t.Helper()
	written := guardTexts()
	path := files(t, map[string]string{"tokens.yaml": written.tokens, "policy.yaml": written.policy})
	p := start(t, append([]string{
		"PODLINK_AUTH_MODE=required", "PODLINK_AUTH_TOKENS_FILE=" + path("tokens.yaml"), "PODLINK_AUTH_POLICY_FILE=" + path("policy.yaml"),
	}, env...)...)
	p.WaitReady(t)
	return p
}
