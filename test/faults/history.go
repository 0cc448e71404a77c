//go:build faults

package faults

import (
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	v1 "podlink/api/podlink/v1"
	podlinktest "podlink/test/kit/podlink"
)

const (
	// After generation operations, the load goes on to new uids: enough operations for contention, and few enough for the
	// checker, which tries every order of the operations of unknown outcome.
	generation        = 1000
	uidsPerGeneration = 20
	// claims is the number of processes of each pod that claim links.
	claims = 3
	// checkTimeout bounds the check of all histories of a run.
	checkTimeout = 2 * time.Minute
)

// services are the services of the links. The links of a uid share a key.
var services = []string{"room", "chat"}

// lasting has the values of persist_seconds and keep_seconds, all longer than a run: no link expires.
var lasting = []int32{2000, 4000, 8000}

// mutations are the mutations that execute one script each. compute executes several.
var mutations = []kind{set, set, trySet, setIfAbsent, remove, removeWithID}

// everything is all methods on links, weighted by repetition.
var everything = append([]kind{compute, compute, get, get, getPersist, list}, mutations...)

// linkName identifies a link.
type linkName struct{ uid, service string }

// histories is a workload in which all clients work on the same few links.
type histories struct {
	kinds []kind

	mu     sync.Mutex
	begun  int
	epochs map[linkName]int64 // of the latest reply
}

func newHistories(kinds []kind) *histories {
	return &histories{kinds: kinds, epochs: make(map[linkName]int64)}
}

// prepare reports the pods, so that compute finds them.
func (h *histories) prepare(t testing.TB, p *podlinktest.Process) {
	t.Helper()
	states := v1.NewStateServiceClient(p.Conn(t))
	for _, service := range services {
		for _, pod := range pods {
			_, err := states.SetServiceState(t.Context(), &v1.SetServiceStateRequest{
				Namespace: namespace, Service: service, PodId: proto.Int32(pod), State: "up", TtlSeconds: proto.Int32(forever),
			})
			require.NoError(t, err)
		}
	}
}

// next implements workload.
func (h *histories) next(_ int, random *rand.Rand) operation {
	h.mu.Lock()
	defer h.mu.Unlock()
	name := linkName{
		uid:     fmt.Sprintf("uid-%d-%d", h.begun/generation, random.IntN(uidsPerGeneration)),
		service: services[random.IntN(len(services))],
	}
	h.begun++
	op := operation{
		kind: h.kinds[random.IntN(len(h.kinds))],
		uid:  name.uid, service: name.service,
		pod: pods[random.IntN(len(pods))], seconds: forever, expected: noEpoch,
	}
	if random.IntN(2) == 0 {
		op.seconds = lasting[random.IntN(len(lasting))]
	}
	if random.IntN(3) == 0 {
		op.expected = h.epochs[name]
	}
	if (op.kind == set || op.kind == setIfAbsent) && random.IntN(2) == 0 {
		op.claim = 1 + random.Int64N(claims)
	}
	return op
}

// done implements workload.
func (h *histories) done(c call) {
	if c.link == nil {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.epochs[linkName{c.uid, c.service}] = c.link.epoch
}

// history is the operations on a link.
type history struct {
	linkName
	operations []porcupine.Operation
}

// read reads every link once more after the load, and returns all calls of the run with these reads.
func (h *histories) read(t testing.TB, r *run) []call {
	t.Helper()
	deadline := time.Now().Add(readTimeout)
	var names []linkName
	known := make(map[linkName]bool)
	for _, c := range r.calls {
		if name := (linkName{c.uid, c.service}); !known[name] {
			known[name] = true
			names = append(names, name)
		}
	}
	calls := r.calls
	for _, name := range names {
		c := call{operation: operation{kind: get, uid: name.uid, service: name.service}, client: r.clients}
		for {
			c.begin = time.Since(r.started)
			c.answer = perform(r.conns[0], c.operation)
			c.end = time.Since(r.started)
			if c.outcome == acknowledged {
				break
			}
			require.Equal(t, refused, c.outcome, "%s: %s", c.reason, c.message)
			require.True(t, time.Now().Before(deadline), "the store has not recovered: %s", c.reason)
			time.Sleep(20 * time.Millisecond)
		}
		calls = append(calls, c)
	}
	return calls
}

// historiesOf groups the calls by link. It omits refused calls, which must have had no effect. A call of unknown outcome never
// returns: it may take effect at any time, and at the end of the history is as good as never.
func historiesOf(calls []call) []history {
	var all []history
	known := make(map[linkName]int)
	add := func(name linkName, c call) {
		if c.outcome != acknowledged && c.outcome != unknown {
			return
		}
		if _, ok := known[name]; !ok {
			known[name] = len(all)
			all = append(all, history{linkName: name})
		}
		op := porcupine.Operation{
			ClientId: c.client, Input: c.operation, Output: c.answer, Call: int64(c.begin), Return: int64(c.end),
		}
		if c.outcome == unknown {
			op.Return = math.MaxInt64
		}
		h := &all[known[name]]
		h.operations = append(h.operations, op)
	}
	for _, c := range calls {
		if c.kind != list {
			add(linkName{c.uid, c.service}, c)
			continue
		}
		for _, service := range services {
			c.service = service
			add(linkName{c.uid, service}, c)
		}
	}
	return all
}

// illegal returns the first history that is not linearizable, nil if all are. It fails the test if the check times out.
func illegal(t testing.TB, all []history) *history {
	t.Helper()
	deadline := time.Now().Add(checkTimeout)
	m := model()
	for i := range all {
		left := max(time.Until(deadline), time.Millisecond)
		switch porcupine.CheckOperationsTimeout(m, all[i].operations, left) {
		case porcupine.Ok:
		case porcupine.Illegal:
			return &all[i]
		case porcupine.Unknown:
			require.Failf(t, "the check timed out", "%d of %d histories within %s", i, len(all), checkTimeout)
		}
	}
	return nil
}

// draw writes a visualization of the history to a new file in dir, and returns its path.
func (h *history) draw(t testing.TB, dir string) string {
	t.Helper()
	m := model()
	_, info := porcupine.CheckOperationsVerbose(m, h.operations, checkTimeout)
	file, err := os.CreateTemp(dir, "podlink-history-*.html")
	require.NoError(t, err)
	defer file.Close()
	require.NoError(t, porcupine.Visualize(m, info, file))
	return file.Name()
}
