package variants_test

import (
	"testing"

	podlinktest "podlink/test/kit/podlink"
	"podlink/test/kit/variants"
)

// TestPatchesApply fails if a patch no longer applies to its source. It builds nothing, and so finds in a moment what the suites that
// use the variants take minutes to find.
func TestPatchesApply(t *testing.T) {
	for name, patches := range variants.Patches(t) {
		t.Run(name, func(t *testing.T) { podlinktest.CheckPatches(t, patches...) })
	}
}
