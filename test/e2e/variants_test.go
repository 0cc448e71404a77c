//go:build faults

package e2e

import (
	"testing"

	"podlink/test/kit/variants"
)

// TestKnownBad: the tests of rights find builds that grant too much.
func TestKnownBad(t *testing.T) {
	for name, row := range map[string]struct{ test, want string }{
		variants.ForceIsBind: {"TestRights", "SetLinkedPod"},
		variants.AnyPod:      {"TestRights", "/another-pod/"},
		variants.AnyLink:     {"TestPodsChangeTheirOwnLinksOnly", "Should be true"},
	} {
		t.Run(name, func(t *testing.T) { variants.RequireFound(t, name, row.test, row.want) })
	}
}
