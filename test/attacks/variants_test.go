//go:build faults

package attacks

import (
	"testing"

	"podlink/test/kit/variants"
)

// TestKnownBad: the attacks find builds without the bounds that they attack.
func TestKnownBad(t *testing.T) {
	variants.RequireFound(t, map[string]variants.Finder{
		variants.HalfOpen:     {Test: "TestHalfOpenStreams", Text: "is not less than"},
		variants.WatchFlood:   {Test: "TestWatchFlood", Text: "server.max_watch"},
		variants.ForeignPages: {Test: "TestWebPages", Text: "Not equal"},
	})
}
