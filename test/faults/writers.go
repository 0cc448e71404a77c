//go:build faults

package faults

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	podlinktest "podlink/test/kit/podlink"
)

const (
	writersService = "writers"
	// readTimeout bounds how long the store may take to answer a read after the load.
	readTimeout = 30 * time.Second
)

// writers is a workload that detects lost acknowledged writes, even those that a later write has replaced. Each uid is written
// by one client, whose n-th write links it to pod n. So the pod of the final link, and the previous pod in the reply to each
// write, identify the write that was current at that time.
type writers struct {
	uids [][]*written // of each client
}

// written is a uid and what its client knows about it.
type written struct {
	uid      string
	attempts int32
	acked    []ack
	unknown  map[int32]bool // the pods of writes of unknown outcome
	broken   []string
}

// ack is an acknowledged write.
type ack struct {
	pod   int32
	epoch int64
	lost  bool
}

// newWriters returns the workload for the number of clients, with a number of uids each.
func newWriters(clients, each int) *writers {
	w := &writers{uids: make([][]*written, clients)}
	for client := range clients {
		for i := range each {
			uid := fmt.Sprintf("writer-%d-%d", client, i)
			w.uids[client] = append(w.uids[client], &written{uid: uid, unknown: make(map[int32]bool)})
		}
	}
	return w
}

// next implements workload: a write of one of the client's uids.
func (w *writers) next(client int, random *rand.Rand) operation {
	uid := w.uids[client][random.IntN(len(w.uids[client]))]
	uid.attempts++
	return operation{
		kind: set, uid: uid.uid, service: writersService, pod: uid.attempts, seconds: forever, expected: noEpoch,
	}
}

// done implements workload.
func (w *writers) done(c call) {
	for _, uid := range w.uids[c.client] {
		if uid.uid == c.uid {
			uid.done(c)
		}
	}
}

func (u *written) done(c call) {
	switch c.outcome {
	case unknown:
		u.unknown[c.pod] = true
	case acknowledged:
		u.wasCurrent(*c.previous)
		if len(u.acked) > 0 && c.link.epoch <= u.acked[len(u.acked)-1].epoch {
			u.violated("write %d has epoch %d, not more than the write before it", c.pod, c.link.epoch)
		}
		u.acked = append(u.acked, ack{pod: c.link.pod, epoch: c.link.epoch})
	case refused, wrong:
	}
}

func (u *written) violated(format string, args ...any) {
	u.broken = append(u.broken, u.uid+": "+fmt.Sprintf(format, args...))
}

// wasCurrent marks lost writes, given the pod that was linked just before the next write, or at the end.
func (u *written) wasCurrent(pod int32) {
	switch {
	case len(u.acked) > 0 && u.acked[len(u.acked)-1].pod == pod:
		// Nothing is lost.
	case u.unknown[pod]:
		// It was executed, perhaps after later writes, so those are not known to be lost.
	case pod == noPod:
		u.lose(func(ack) bool { return true })
	case u.find(pod) != nil:
		u.lose(func(a ack) bool { return a.pod > pod })
	default:
		u.violated("linked to pod %d, whose write was refused or never made", pod)
	}
}

// isFinal marks lost writes, given the link at the end.
func (u *written) isFinal(l link) {
	found := u.find(l.pod)
	switch {
	case u.unknown[l.pod]:
		u.lose(func(a ack) bool { return a.epoch > l.epoch })
	case l.pod != noPod && found != nil && found.epoch != l.epoch:
		u.violated("write %d was acknowledged with epoch %d and now has %d", l.pod, found.epoch, l.epoch)
	default:
		u.wasCurrent(l.pod)
	}
}

func (u *written) find(pod int32) *ack {
	for i := range u.acked {
		if u.acked[i].pod == pod {
			return &u.acked[i]
		}
	}
	return nil
}

// lose marks the acknowledged writes for which gone is true as lost.
func (u *written) lose(gone func(ack) bool) {
	for i := range u.acked {
		if gone(u.acked[i]) {
			u.acked[i].lost = true
		}
	}
}

// lost returns the number of lost acknowledged writes.
func (u *written) lost() int {
	lost := 0
	for _, a := range u.acked {
		if a.lost {
			lost++
		}
	}
	return lost
}

// verify reads every uid through the podlink after the load, and adds lost writes and violations to the report.
func (w *writers) verify(t testing.TB, p *podlinktest.Process, report *Report) {
	t.Helper()
	conn := p.Conn(t)
	deadline := time.Now().Add(readTimeout)
	for _, uids := range w.uids {
		for _, uid := range uids {
			op := operation{kind: get, uid: uid.uid, service: writersService}
			a := perform(conn, op)
			for ; a.outcome == refused; a = perform(conn, op) {
				require.True(t, time.Now().Before(deadline), "the store has not recovered: %s", a.reason)
				time.Sleep(20 * time.Millisecond)
			}
			require.Equal(t, acknowledged, a.outcome, "%s: %s", a.reason, a.message)
			uid.isFinal(*a.link)
			report.Lost += uid.lost()
			report.Violations = append(report.Violations, uid.broken...)
		}
	}
}
