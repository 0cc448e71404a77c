package e2e

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	podlinktest "podlink/test/kit/podlink"
)

// secret is the static token of an identity, as long as tokens must be.
func secret(name string) string { return name + "-" + strings.Repeat("0123456789abcdef", 4) }

// guard is a tokens file in which each identity has a static token, and a policy with the identities' rules.
type guard struct{ tokens, policy string }

func guardTexts() guard {
	var tokens, rules strings.Builder
	rules.WriteString("rules:\n")
	for _, who := range identities {
		if who.kind == "" || who.unknown {
			continue
		}
		sum := sha256.Sum256([]byte(secret(who.name)))
		fmt.Fprintf(&tokens, "- {name: %s, sha256: %s, not_after: 2099-01-01T00:00:00Z", who.name, hex.EncodeToString(sum[:]))
		if who.pod != "" {
			fmt.Fprintf(&tokens, ", pod: %s", who.pod)
		}
		tokens.WriteString("}\n")
		if who.rule != "" {
			fmt.Fprintf(&rules, "  - {who: [\"token:%s\"], %s}\n", who.name, who.rule)
		}
	}
	return guard{tokens.String(), rules.String()}
}

// guardedPodlink starts podlink in plaintext on loopback, with the identities' static tokens and rules.
func guardedPodlink(t *testing.T, env ...string) *podlinktest.Process {
	t.Helper()
	dir, texts := t.TempDir(), guardTexts()
	for name, text := range map[string]string{"tokens.yaml": texts.tokens, "policy.yaml": texts.policy} {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600))
	}
	p := start(t, append([]string{
		"PODLINK_AUTH_MODE=required", "PODLINK_AUTH_RATE=1000000", "PODLINK_AUDIT_FILE=" + filepath.Join(dir, "audit.log"),
		// A machine that is busy with other tests must not fail a call.
		"PODLINK_SERVER_GRPC_TIMEOUT=30s", "PODLINK_SERVER_HTTP_TIMEOUT=30s", "PODLINK_DATA_REDIS_READ_TIMEOUT=20s",
		"PODLINK_DATA_REDIS_WRITE_TIMEOUT=20s", "PODLINK_DATA_REDIS_POOL_TIMEOUT=20s", "PODLINK_DATA_REDIS_DIAL_TIMEOUT=20s",
		"PODLINK_AUTH_TOKENS_FILE=" + filepath.Join(dir, "tokens.yaml"), "PODLINK_AUTH_POLICY_FILE=" + filepath.Join(dir, "policy.yaml"),
	}, env...)...)
	p.WaitReady(t)
	return p
}
