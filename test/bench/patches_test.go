package bench

import (
	"testing"

	podlinktest "podlink/test/kit/podlink"
)

// silence removes the metrics of requests, use cases and calls to the store from podlink, to measure their cost: there is no
// setting that does. This file has no build tag, so that `make test` finds a patch that no longer applies to its source;
// `make bench` takes many minutes to find it.
var silence = []podlinktest.Patch{
	{File: "internal/server/chain.go", Old: "\tc.metrics.count(t, typ, span.SpanContext(), took, err)\n"},
	{File: "internal/telemetry/domain.go", Old: "\td.computes.WithLabelValues(outcome).Inc()\n"},
	{
		File: "internal/rdb/observe.go",
		Old:  "\thistogram.ObserveSeconds(c.metrics.seconds[c.command], end.Sub(c.start).Seconds(), c.trace())\n",
		New:  "\t_ = histogram.ObserveSeconds\n",
	},
	{File: "internal/rdb/coalesce.go", Old: "\t\tc.batchSizes.Observe(1)\n"},
	{File: "internal/rdb/coalesce.go", Old: "\tc.batchSizes.Observe(float64(len(batch)))\n"},
	{File: "internal/data/metrics.go", Old: "\tm.WithLabelValues(script.Name, linkOutcome(reply.Status(), change)).Inc()\n"},
}

// unfed removes the change feed, and with it what the index is made from, to measure their cost: only the index has a setting.
var unfed = []podlinktest.Patch{
	{File: "internal/app/fleet.go", Old: "{ return biz.NoteChanges(r.links, feed) }", New: "{ return r.links }"},
	{File: "internal/app/fleet.go", Old: "{ return biz.NoteServices(r.pods, feed) }", New: "{ return r.pods }"},
}

// TestPatchesApply fails if a patch no longer applies to its source. It builds nothing.
func TestPatchesApply(t *testing.T) {
	podlinktest.CheckPatches(t, silence...)
	podlinktest.CheckPatches(t, unfed...)
}
