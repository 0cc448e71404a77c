package client

import "time"

// healthyFor is how long a message of a watch vouches: without changes podlink sends one each second.
const healthyFor = 3 * time.Second

// coverage says for which links a watch vouches. It is immutable.
//
// A link that podlink was asked about after the watch began has changed only if the watch has said so. What the watch no longer vouches
// for counts by time: from when it did last, and spread over the ttl, so that a failover of podlink or of its store does not make all
// links be asked about at once.
type coverage struct {
	since time.Time // it vouches for links that were asked about after that
	last  time.Time // when the last message came
	live  bool      // the stream has not ended since

	// Since the watch has missed changes it no longer vouches for links that were asked about after former, and not after since. They are
	// used until old, and for a part of spread more.
	former, old time.Time // zero: there are none
	spread      time.Duration
}

// noting returns the coverage after a message, which says with resync that changes are missing before it. A nil coverage is that of
// before the first message.
func (c *coverage) noting(resync bool, now time.Time, ttl time.Duration) *coverage {
	if c == nil {
		return &coverage{since: now, last: now, live: true}
	}
	next := *c
	next.last, next.live = now, true
	if !resync {
		return &next
	}
	next.since = now
	if now.Sub(c.old) >= c.spread { // Else links of the time before are being refreshed still, and those asked about since then are young.
		next.former = c.since
		if next.old, next.spread = now, ttl; !c.healthy(now) {
			next.old, next.spread = c.byTime(ttl)
		}
	}
	return &next
}

// broken returns the coverage after the end of the stream.
func (c *coverage) broken() *coverage {
	if c == nil {
		return nil
	}
	next := *c
	next.live = false
	return &next
}

// healthy reports whether what the watch has said is all that has happened.
func (c *coverage) healthy(now time.Time) bool { return c.live && now.Sub(c.last) < healthyFor }

// sinceWhen returns from when on the watch has said all that has happened, up to a message that came within d; zero: there is none.
func (c *coverage) sinceWhen(now time.Time, d time.Duration) time.Time {
	if c == nil || now.Sub(c.last) >= d {
		return time.Time{}
	}
	return c.since
}

// byTime returns until when the links count that the watch has vouched for at last, and over which time after that their refreshes
// are spread: together a ttl.
func (c *coverage) byTime(ttl time.Duration) (until time.Time, spread time.Duration) {
	at := min(healthyFor, ttl)
	return c.last.Add(at), ttl - at
}

// vouches reports whether a link counts that was asked about at that time. Part is its place in a spread, from 0 to 1.
func (c *coverage) vouches(asked time.Time, part float64, now time.Time, ttl time.Duration) bool {
	until, spread := c.old, c.spread
	switch {
	case !asked.After(c.since) && (c.former.IsZero() || !asked.After(c.former)):
		return false
	case !asked.After(c.since):
	case c.healthy(now):
		return true
	default:
		until, spread = c.byTime(ttl)
	}
	return now.Before(until.Add(time.Duration(part * float64(spread))))
}
