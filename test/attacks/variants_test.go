//go:build faults

package attacks

import (
	"testing"

	"podlink/test/kit/variants"
)

// TestKnownBad: the attacks find builds without the bounds that they attack.
func TestKnownBad(t *testing.T) {
	for name, row := range map[string]struct{ test, want string }{
		variants.HalfOpen:     {"TestHalfOpenStreams", "is not less than"},
		variants.ForeignPages: {"TestWebPages", "Not equal"},
	} {
		t.Run(name, func(t *testing.T) { variants.RequireFound(t, name, row.test, row.want) })
	}
}
