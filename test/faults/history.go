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
	// A generation of uids serves that many operations: enough for its links to be fought for, and few enough for the
	// checker, which tries every order of the operations whose outcome is unknown.
	generation        = 1000
	uidsPerGeneration = 20
	// checkLimit bounds the check of all histories of a run.
	checkLimit = 2 * time.Minute
)

// services are those that the uids of a history have links of. Their links share a key of the store.
var services = []string{"room", "chat"}

// lasting are what persist_seconds and keep_seconds are taken from; no link expires during a run.
var lasting = []int32{2000, 4000, 8000}

// mutations are those that are one script each; compute is several.
var mutations = []kind{set, set, trySet, setIfAbsent, remove, removeWithID}

// everything are all calls on links, in the proportion in which they are made.
var everything = append([]kind{compute, compute, get, get, getPersist, list}, mutations...)

// linkName names a link of a history.
type linkName struct{ uid, service string }

// histories is a workload in which all clients work on the same few links.
type histories struct {
	kinds []kind

	mu     sync.Mutex
	begun  int
	epochs map[linkName]int64 // the latest that a client was told
}

func newHistories(kinds []kind) *histories {
	return &histories{kinds: kinds, epochs: make(map[linkName]int64)}
}

// prepare reports the pods, for computes.
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

// history is what happened to one link.
type history struct {
	linkName
	operations []porcupine.Operation
}

// read reads every link of the run once more, now that the load is over, and returns all calls.
func (h *histories) read(t testing.TB, r *run) []call {
	t.Helper()
	deadline := time.Now().Add(readLimit)
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
			require.True(t, time.Now().Before(deadline), "the store does not recover: %s", c.reason)
			time.Sleep(20 * time.Millisecond)
		}
		calls = append(calls, c)
	}
	return calls
}

// historiesOf sorts the calls by link. What was refused must have had no effect, and is left out. What is unknown may
// have happened until the end, or at the end, which is as good as never.
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

// illegal returns the first history that no order of its operations explains, nil when there is none. A check that
// takes too long fails the test.
func illegal(t testing.TB, all []history) *history {
	t.Helper()
	deadline := time.Now().Add(checkLimit)
	m := model()
	for i := range all {
		left := max(time.Until(deadline), time.Millisecond)
		switch porcupine.CheckOperationsTimeout(m, all[i].operations, left) {
		case porcupine.Ok:
		case porcupine.Illegal:
			return &all[i]
		case porcupine.Unknown:
			require.Failf(t, "the check takes too long", "%d of %d histories within %s", i, len(all), checkLimit)
		}
	}
	return nil
}

// draw writes a picture of the history to a new file in dir, and returns its path.
func (h *history) draw(t testing.TB, dir string) string {
	t.Helper()
	m := model()
	_, info := porcupine.CheckOperationsVerbose(m, h.operations, checkLimit)
	file, err := os.CreateTemp(dir, "podlink-history-*.html")
	require.NoError(t, err)
	defer file.Close()
	require.NoError(t, porcupine.Visualize(m, info, file))
	return file.Name()
}
