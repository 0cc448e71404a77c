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
	// readLimit bounds how long the store may take after the load to answer a read.
	readLimit = 30 * time.Second
)

// writers is a workload that shows which acknowledged writes are gone. Each uid has one client that writes it: its n-th
// write links the uid to pod n. So the pod of a link, and the previous pod in the reply to the next write, tell which
// writes stood and which are gone; also of writes that were replaced since.
type writers struct {
	uids [][]*written // of each client
}

// written is what a client knows of one of its uids.
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

// newWriters returns the workload for that many clients with that many uids each.
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

// next is a write of one of the client's uids.
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
		u.stood(*c.previous)
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

// stood learns which write stood just before the next one.
func (u *written) stood(pod int32) {
	switch {
	case len(u.acked) > 0 && u.acked[len(u.acked)-1].pod == pod:
		// Nothing is gone.
	case u.unknown[pod]:
		// It was carried out. Maybe later than the writes after it: they are not known to be lost.
	case pod == noPod:
		u.lose(func(ack) bool { return true })
	case u.find(pod) != nil:
		u.lose(func(a ack) bool { return a.pod > pod })
	default:
		u.violated("pod %d stood, whose write was refused or never made", pod)
	}
}

// stands learns which link stands at the end.
func (u *written) stands(l link) {
	found := u.find(l.pod)
	switch {
	case u.unknown[l.pod]:
		u.lose(func(a ack) bool { return a.epoch > l.epoch })
	case l.pod != noPod && found != nil && found.epoch != l.epoch:
		u.violated("write %d was acknowledged with epoch %d and stands with %d", l.pod, found.epoch, l.epoch)
	default:
		u.stood(l.pod)
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

// lose marks the acknowledged writes that are gone.
func (u *written) lose(gone func(ack) bool) {
	for i := range u.acked {
		if gone(u.acked[i]) {
			u.acked[i].lost = true
		}
	}
}

// lost is how many acknowledged writes are gone.
func (u *written) lost() int {
	lost := 0
	for _, a := range u.acked {
		if a.lost {
			lost++
		}
	}
	return lost
}

// judge reads every uid through the podlink, once the load is over, and completes the report: how many acknowledged
// writes are gone, and what should be impossible even then.
func (w *writers) judge(t testing.TB, p *podlinktest.Process, report *Report) {
	t.Helper()
	conn := p.Conn(t)
	deadline := time.Now().Add(readLimit)
	for _, uids := range w.uids {
		for _, uid := range uids {
			op := operation{kind: get, uid: uid.uid, service: writersService}
			a := perform(conn, op)
			for ; a.outcome == refused; a = perform(conn, op) {
				require.True(t, time.Now().Before(deadline), "the store does not recover: %s", a.reason)
				time.Sleep(20 * time.Millisecond)
			}
			require.Equal(t, acknowledged, a.outcome, "%s: %s", a.reason, a.message)
			uid.stands(*a.link)
			report.Lost += uid.lost()
			report.Violations = append(report.Violations, uid.broken...)
		}
	}
}
