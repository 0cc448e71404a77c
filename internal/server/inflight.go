package server

import (
	"sync/atomic"
	"time"
)

// inFlightPause is how long a caller waits after a call that was refused because too many others were being served.
const inFlightPause = 100 * time.Millisecond

// inFlight counts the unary calls of both transports that are being served, and refuses those above a maximum: without it, calls
// that wait for a slow store pile up until the memory is used up. Calls count once they are decoded, so callers that send slowly
// take no one else's place. Streams are bounded per connection.
type inFlight struct {
	most  int64
	now   atomic.Int64
	doors *DoorMetrics
}

func newInFlight(most int32, doors *DoorMetrics) *inFlight {
	f := &inFlight{most: int64(most), doors: doors}
	doors.InFlightFunc(func() int { return int(f.now.Load()) })
	return f
}

// begin counts a call, or returns why it is refused. Without an error, call end when the call has ended.
func (f *inFlight) begin() error {
	if f.now.Add(1) > f.most {
		f.now.Add(-1)
		f.doors.Refused(RefusedByInFlight)
		return rateLimited(inFlightPause, "podlink is serving as many calls at once as it takes (server.max_in_flight); nothing has changed")
	}
	return nil
}

func (f *inFlight) end() { f.now.Add(-1) }
