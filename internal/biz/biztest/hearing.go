package biztest

import "podlink/internal/biz"

// Advance is the reference of what a stored report does to the Hearing of its service, to compare a store with. h is the
// Hearing before the report, nil before the first one of the service; nowMs is the store's clock. The pod keeps nowMs and the
// Heard of the result.
func Advance(h *biz.Hearing, nowMs int64, ttl biz.TTL) biz.Hearing {
	const foreverMs, leastStepMs = 30_000, 500
	ttlMs := int64(ttl) * 1000
	if ttl == biz.Forever {
		ttlMs = foreverMs
	}
	if h == nil {
		return biz.Hearing{Last: nowMs, Least: ttlMs}
	}
	next := *h
	step := max(leastStepMs, h.Least/2)
	gap := nowMs - h.Last
	next.Heard += min(max(0, gap), step)
	if gap > step {
		next.Resumed = next.Heard
	}
	if ttlMs <= h.Least || next.Heard-h.LeastAt > 3*h.Least {
		next.Least, next.LeastAt = min(ttlMs, 2*h.Least), next.Heard
	}
	next.Last = nowMs
	return next
}
