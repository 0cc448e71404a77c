//go:build faults

package e2e

import (
	"testing"

	"podlink/test/kit/variants"
)

// TestKnownBad: the tests of rights find builds that grant too much.
func TestKnownBad(t *testing.T) {
	variants.RequireFound(t, map[string]variants.Finder{
		variants.ForceIsBind: {Test: "TestRights", Text: "SetLinkedPod"},
		variants.AnyPod:      {Test: "TestRights", Text: "/another-pod/"},
		variants.AnyLink:     {Test: "TestPodsChangeTheirOwnLinksOnly", Text: "Should be true"},
	})
}
