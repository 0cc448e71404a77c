//go:build faults

package e2e

import (
	"testing"

	"podlink/test/kit/variants"
)

// TestKnownBad: the tests of rights and of the doors find builds that grant or keep too much.
func TestKnownBad(t *testing.T) {
	variants.RequireFound(t, map[string]variants.Finder{
		variants.ForceIsBind: {Test: "TestRights", Text: "SetLinkedPod"},
		variants.AnyPod:      {Test: "TestRights", Text: "/another-pod/"},
		variants.AnyLink:     {Test: "TestPodsChangeTheirOwnLinksOnly", Text: "Should be true"},

		variants.HeldUnknown:  {Test: "TestUnknownMethodsAreNotHeld", Text: "the call is held open"},
		variants.LateMessages: {Test: "TestLateMessages", Text: "Not equal"},
		variants.EmptyKeys:    {Test: "TestUnusableDoors", Text: "An error is expected"},
	})
}
