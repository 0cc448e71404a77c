//go:build faults

package faults

import (
	"math"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"
)

// Operations for handmade histories.

func setting(pod int32) operation {
	return operation{kind: set, pod: pod, seconds: forever, expected: noEpoch}
}

func (op operation) on(k kind) operation {
	op.kind = k
	return op
}

func (op operation) lasting(seconds int32) operation {
	op.seconds = seconds
	return op
}

func (op operation) expecting(epoch int64) operation {
	op.expected = epoch
	return op
}

func (op operation) claiming(generation int64) operation {
	op.claim = generation
	return op
}

func removing() operation { return operation{kind: remove, expected: noEpoch} }

func reading() operation { return operation{kind: get, service: "room"} }

// Answers to them.

var (
	lostReply = answer{outcome: unknown, reason: "OUTCOME_UNKNOWN"}
	none      = link{pod: noPod, seconds: gone}
)

// did is the answer to an operation that was applied, with the pod before it and the link after it.
func did(previous int32, l link) answer {
	return answer{outcome: acknowledged, applied: true, previous: proto.Int32(previous), link: &l}
}

// didNot is the answer to an operation that was not applied.
func didNot(l link) answer {
	return answer{outcome: acknowledged, previous: proto.Int32(l.pod), link: &l}
}

func found(l link) answer { return answer{outcome: acknowledged, link: &l} }

func removed(previous int32) answer {
	return answer{outcome: acknowledged, applied: previous != noPod, previous: proto.Int32(previous)}
}

func mismatch(l link) answer {
	return answer{outcome: acknowledged, reason: "EPOCH_MISMATCH", link: &l}
}

func superseded(generation int64) answer {
	return answer{outcome: acknowledged, reason: "SUPERSEDED", generation: generation}
}

func (a answer) computing(outcome string) answer {
	a.computed = outcome
	return a
}

// during is an operation from begin to end. One of unknown outcome never ends.
func during(begin, end int64, op operation, a answer) porcupine.Operation {
	if a.outcome == unknown {
		end = math.MaxInt64
	}
	return porcupine.Operation{Input: op, Output: a, Call: begin, Return: end}
}

// inOrder returns sequential operations, from pairs of operation and answer.
func inOrder(pairs ...any) []porcupine.Operation {
	var all []porcupine.Operation
	for i := 0; i < len(pairs); i += 2 {
		all = append(all, during(int64(i), int64(i)+1, pairs[i].(operation), pairs[i+1].(answer)))
	}
	return all
}

func TestModel(t *testing.T) {
	for _, row := range []struct {
		name       string
		legal      bool
		operations []porcupine.Operation
	}{
		{"nothing", true, inOrder(reading(), found(none))},
		{"a link that was never set", false, inOrder(reading(), found(link{1, forever, 5, 0}))},

		{"a link is read", true, inOrder(
			setting(1), did(noPod, link{1, forever, 5, 0}),
			reading(), found(link{1, forever, 5, 0}))},
		{"a link is gone", false, inOrder(
			setting(1), did(noPod, link{1, forever, 5, 0}),
			reading(), found(none))},
		{"an old link is read", false, inOrder(
			setting(1), did(noPod, link{1, forever, 5, 0}),
			setting(2), did(1, link{2, forever, 6, 0}),
			reading(), found(link{1, forever, 5, 0}))},
		{"an old link is read during a set", true, []porcupine.Operation{
			during(0, 1, setting(1), did(noPod, link{1, forever, 5, 0})),
			during(2, 9, setting(2), did(1, link{2, forever, 6, 0})),
			during(3, 4, reading(), found(link{1, forever, 5, 0})),
		}},
		{"a new link is read and then the old one", false, []porcupine.Operation{
			during(0, 1, setting(1), did(noPod, link{1, forever, 5, 0})),
			during(2, 9, setting(2), did(1, link{2, forever, 6, 0})),
			during(3, 4, reading(), found(link{2, forever, 6, 0})),
			during(5, 6, reading(), found(link{1, forever, 5, 0})),
		}},

		{"two concurrent sets, one after the other", true, []porcupine.Operation{
			during(0, 9, setting(1), did(2, link{1, forever, 6, 0})),
			during(0, 9, setting(2), did(noPod, link{2, forever, 5, 0})),
		}},
		{"two concurrent sets, both the first", false, []porcupine.Operation{
			during(0, 9, setting(1), did(noPod, link{1, forever, 6, 0})),
			during(0, 9, setting(2), did(noPod, link{2, forever, 5, 0})),
		}},
		{"two concurrent sets, the second with a lower epoch", false, []porcupine.Operation{
			during(0, 9, setting(1), did(2, link{1, forever, 5, 0})),
			during(0, 9, setting(2), did(noPod, link{2, forever, 6, 0})),
		}},
		{"a wrong previous pod", false, inOrder(
			setting(1), did(noPod, link{1, forever, 5, 0}),
			setting(2), did(0, link{2, forever, 6, 0}))},

		{"the same pod keeps its epoch", true, inOrder(
			setting(1), did(noPod, link{1, forever, 5, 0}),
			setting(1).lasting(2000), did(1, link{1, 2000, 5, 0}))},
		{"the same pod gets another epoch", false, inOrder(
			setting(1), did(noPod, link{1, forever, 5, 0}),
			setting(1), did(1, link{1, forever, 6, 0}))},
		{"another pod keeps the epoch", false, inOrder(
			setting(1), did(noPod, link{1, forever, 5, 0}),
			setting(2), did(1, link{2, forever, 5, 0}))},
		{"an epoch is reused after a removal", false, inOrder(
			setting(1), did(noPod, link{1, forever, 5, 0}),
			removing(), removed(1),
			setting(2), did(noPod, link{2, forever, 5, 0}))},
		{"an epoch grows after a removal", true, inOrder(
			setting(1), did(noPod, link{1, forever, 5, 0}),
			removing(), removed(1),
			setting(1), did(noPod, link{1, forever, 6, 0}))},

		{"a temporary link has less time left", true, inOrder(
			setting(1).lasting(2000), did(noPod, link{1, 2000, 5, 0}),
			reading(), found(link{1, 1990, 5, 0}))},
		{"a temporary link has more time left", false, inOrder(
			setting(1).lasting(2000), did(noPod, link{1, 2000, 5, 0}),
			reading(), found(link{1, 2001, 5, 0}))},
		{"a temporary link has become persistent", false, inOrder(
			setting(1).lasting(2000), did(noPod, link{1, 2000, 5, 0}),
			reading(), found(link{1, forever, 5, 0}))},
		{"a temporary link is not returned as persistent", true, inOrder(
			setting(1).lasting(2000), did(noPod, link{1, 2000, 5, 0}),
			reading().on(getPersist), found(none))},
		{"a persistent link is not returned as persistent", false, inOrder(
			setting(1), did(noPod, link{1, forever, 5, 0}),
			reading().on(getPersist), found(none))},

		{"try moves a temporary link", true, inOrder(
			setting(1).lasting(2000), did(noPod, link{1, 2000, 5, 0}),
			setting(2).on(trySet), did(1, link{2, forever, 6, 0}))},
		{"try keeps a persistent link", true, inOrder(
			setting(1), did(noPod, link{1, forever, 5, 0}),
			setting(2).on(trySet), didNot(link{1, forever, 5, 0}))},
		{"try moves a persistent link", false, inOrder(
			setting(1), did(noPod, link{1, forever, 5, 0}),
			setting(2).on(trySet), did(1, link{2, forever, 6, 0}))},
		{"if absent keeps a link", true, inOrder(
			setting(1).lasting(2000), did(noPod, link{1, 2000, 5, 0}),
			setting(2).on(setIfAbsent), didNot(link{1, 2000, 5, 0}))},
		{"if absent moves a link", false, inOrder(
			setting(1).lasting(2000), did(noPod, link{1, 2000, 5, 0}),
			setting(2).on(setIfAbsent), answer{outcome: acknowledged, applied: true, link: &link{2, forever, 6, 0}})},

		{"compute creates a link", true, inOrder(
			setting(0).on(compute), did(noPod, link{2, forever, 5, 0}).computing("CREATED"),
			reading(), found(link{2, forever, 5, 0}))},
		{"compute finds a link", true, inOrder(
			setting(1), did(noPod, link{1, forever, 5, 0}),
			setting(0).on(compute), didNot(link{1, forever, 5, 0}).computing("EXISTING"))},
		{"compute moves a link", false, inOrder(
			setting(1), did(noPod, link{1, forever, 5, 0}),
			setting(0).on(compute), did(1, link{2, forever, 6, 0}).computing("RELINKED"))},
		{"compute finds an absent link", false, inOrder(
			setting(0).on(compute), didNot(link{2, forever, 5, 0}).computing("EXISTING"))},
		{"compute finds no pod", false, inOrder(
			setting(0).on(compute), answer{outcome: acknowledged, reason: "NO_AVAILABLE_POD"})},

		{"a removal", true, inOrder(
			setting(1), did(noPod, link{1, forever, 5, 0}),
			removing(), removed(1),
			removing(), removed(noPod),
			reading(), found(none))},
		{"a removal without effect", false, inOrder(
			setting(1), did(noPod, link{1, forever, 5, 0}),
			removing(), removed(1),
			reading(), found(link{1, forever, 5, 0}))},
		{"two concurrent removals that both removed", false, []porcupine.Operation{
			during(0, 1, setting(1), did(noPod, link{1, forever, 5, 0})),
			during(2, 9, removing(), removed(1)),
			during(2, 9, removing(), removed(1)),
		}},
		{"a removal that keeps the link", true, inOrder(
			setting(1), did(noPod, link{1, forever, 5, 0}),
			removing().lasting(2000), removed(1),
			reading(), found(link{1, 2000, 5, 0}))},
		{"a removal of a pod's link", true, inOrder(
			setting(1), did(noPod, link{1, forever, 5, 0}),
			setting(1).on(removeWithID).lasting(0), answer{outcome: acknowledged, applied: true, link: &none})},
		{"a removal of another pod's link", true, inOrder(
			setting(1), did(noPod, link{1, forever, 5, 0}),
			setting(2).on(removeWithID).lasting(0), answer{outcome: acknowledged, link: &link{1, forever, 5, 0}})},
		{"a removal of another pod's link that removed", false, inOrder(
			setting(1), did(noPod, link{1, forever, 5, 0}),
			setting(2).on(removeWithID).lasting(0), answer{outcome: acknowledged, applied: true, link: &none})},

		{"the epoch is the expected one", true, inOrder(
			setting(1).expecting(0), did(noPod, link{1, forever, 5, 0}),
			setting(2).expecting(5), did(1, link{2, forever, 6, 0}),
			removing().expecting(6), removed(2))},
		{"the epoch is not the expected one", true, inOrder(
			setting(1), did(noPod, link{1, forever, 5, 0}),
			setting(2).expecting(4), mismatch(link{pod: 1, epoch: 5}),
			removing().expecting(0), mismatch(link{pod: 1, epoch: 5}))},
		{"an epoch is expected of an absent link", true, inOrder(
			removing().expecting(4), mismatch(link{pod: noPod}))},
		{"a set with a wrong expected epoch", false, inOrder(
			setting(1), did(noPod, link{1, forever, 5, 0}),
			setting(2).expecting(4), did(1, link{2, forever, 6, 0}))},
		{"a mismatch with the right expected epoch", false, inOrder(
			setting(1), did(noPod, link{1, forever, 5, 0}),
			setting(2).expecting(5), mismatch(link{pod: 1, epoch: 5}))},
		{"a mismatch with a wrong link", false, inOrder(
			setting(1), did(noPod, link{1, forever, 5, 0}),
			setting(2).expecting(4), mismatch(link{pod: 2, epoch: 5}))},

		{"a claim gives an epoch, once", true, inOrder(
			setting(1), did(noPod, link{1, forever, 5, 0}),
			setting(1).claiming(7), did(1, link{1, forever, 6, 7}),
			setting(1).claiming(7).expecting(5), did(1, link{1, forever, 6, 7}),
			setting(1).claiming(8).expecting(6), did(1, link{1, forever, 7, 8}),
			setting(1).claiming(7), superseded(8),
			setting(1), did(1, link{1, forever, 7, 8}))},
		{"a claim without an epoch", false, inOrder(
			setting(1), did(noPod, link{1, forever, 5, 0}),
			setting(1).claiming(7), did(1, link{1, forever, 5, 7}))},
		{"two processes with one epoch", false, inOrder(
			setting(1).claiming(7), did(noPod, link{1, forever, 5, 7}),
			setting(1).claiming(8), did(1, link{1, forever, 5, 8}))},
		{"an old process takes the link back", false, inOrder(
			setting(1).claiming(8), did(noPod, link{1, forever, 5, 8}),
			setting(1).claiming(7), did(1, link{1, forever, 6, 7}))},
		{"a repeated claim with another epoch", false, inOrder(
			setting(1).claiming(7), did(noPod, link{1, forever, 5, 7}),
			setting(1).claiming(7), did(1, link{1, forever, 6, 7}))},
		{"a process is superseded by none", false, inOrder(
			setting(1), did(noPod, link{1, forever, 5, 0}),
			setting(1).claiming(7), superseded(8))},
		{"a claim of another epoch than expected", true, inOrder(
			setting(1).claiming(7), did(noPod, link{1, forever, 5, 7}),
			setting(1).claiming(8).expecting(4), mismatch(link{pod: 1, epoch: 5, claim: 7}))},
		{"a claim of another pod", true, inOrder(
			setting(1).claiming(8), did(noPod, link{1, forever, 5, 8}),
			setting(2).claiming(7), did(1, link{2, forever, 6, 7}),
			setting(1), did(2, link{1, forever, 7, 0}))},
		{"a claim survives a move", false, inOrder(
			setting(1).claiming(8), did(noPod, link{1, forever, 5, 8}),
			setting(2), did(1, link{2, forever, 6, 8}))},
		{"a kept link has no claim", true, inOrder(
			setting(1).claiming(8).on(setIfAbsent), answer{outcome: acknowledged, applied: true, link: &link{1, forever, 5, 8}},
			removing().lasting(2000), removed(1),
			reading(), found(link{1, 2000, 5, 0}))},
		{"a lost reply to a claim", true, inOrder(
			setting(1).claiming(7), lostReply,
			setting(1).claiming(7).expecting(0), did(1, link{1, forever, 5, 7}))},

		{"a lost reply without effect", true, inOrder(
			setting(1), lostReply,
			reading(), found(none))},
		{"a lost reply with an effect", true, inOrder(
			setting(1), lostReply,
			reading(), found(link{1, forever, 5, 0}))},
		{"a lost reply with a late effect", true, inOrder(
			setting(1), lostReply,
			reading(), found(none),
			setting(2), did(noPod, link{2, forever, 5, 0}),
			reading(), found(link{1, forever, 6, 0}))},
		{"a lost reply with two effects", false, inOrder(
			setting(1), lostReply,
			reading(), found(link{1, forever, 5, 0}),
			setting(2), did(1, link{2, forever, 6, 0}),
			reading(), found(link{1, forever, 7, 0}))},
		{"a lost reply whose effect has an old epoch", false, inOrder(
			setting(2), did(noPod, link{2, forever, 5, 0}),
			setting(1), lostReply,
			reading(), found(link{1, forever, 5, 0}))},
		{"an operation that was executed twice", false, inOrder(
			setting(2), did(noPod, link{2, forever, 5, 0}),
			setting(1), did(1, link{1, forever, 6, 0}))},
		{"the epoch of a lost reply is expected", true, inOrder(
			setting(1), lostReply,
			setting(2).expecting(5), did(1, link{2, forever, 6, 0}))},
		{"the epoch of a lost reply is not the expected one", true, inOrder(
			setting(1), lostReply,
			setting(2).expecting(5), mismatch(link{pod: 1, epoch: 7}))},
		{"the epoch of a lost reply is expected by a lost one", true, inOrder(
			setting(1), lostReply,
			setting(2).expecting(5), lostReply,
			reading(), found(link{2, forever, 6, 0}))},
		{"a lost reply to a compute", true, inOrder(
			setting(0).on(compute), lostReply,
			reading(), found(link{2, forever, 5, 0}))},
		{"a lost reply to a compute that moves", false, inOrder(
			setting(1), did(noPod, link{1, forever, 5, 0}),
			setting(0).on(compute), lostReply,
			reading(), found(link{2, forever, 6, 0}))},
		{"a lost reply to a removal", true, inOrder(
			setting(1), did(noPod, link{1, forever, 5, 0}),
			removing(), lostReply,
			reading(), found(link{1, forever, 5, 0}),
			reading(), found(none))},

		{"a list", true, inOrder(
			setting(1), did(noPod, link{1, forever, 5, 0}),
			reading().on(list), answer{outcome: acknowledged, links: map[string]link{
				"room": {1, forever, 5, 0}, "chat": {2, forever, 9, 0},
			}})},
		{"a list without the link", false, inOrder(
			setting(1), did(noPod, link{1, forever, 5, 0}),
			reading().on(list), answer{outcome: acknowledged, links: map[string]link{"chat": {1, forever, 5, 0}}})},
	} {
		t.Run(row.name, func(t *testing.T) {
			want := porcupine.Illegal
			if row.legal {
				want = porcupine.Ok
			}
			require.Equal(t, want, porcupine.CheckOperationsTimeout(model(), row.operations, time.Minute))
			require.FileExists(t, (&history{operations: row.operations}).draw(t, t.TempDir()))
		})
	}
}

func TestOutcomes(t *testing.T) {
	for _, row := range []struct {
		kind   kind
		reason string
		want   outcome
	}{
		{set, "EPOCH_MISMATCH", acknowledged},
		{set, "SUPERSEDED", acknowledged},
		{compute, "NO_AVAILABLE_POD", acknowledged},
		{set, "STORE_UNAVAILABLE", refused},
		{set, "STORE_FULL", refused},
		{set, "CANCELED", refused},
		{set, "OUTCOME_UNKNOWN", unknown},
		{set, "REPLICATION_UNCONFIRMED", unknown},
		{get, "DEADLINE_EXCEEDED", refused},
		{set, "DEADLINE_EXCEEDED", wrong},
		{get, "OUTCOME_UNKNOWN", wrong},
		{get, "INTERNAL", wrong},
		{get, "STORE_DATA_CORRUPT", wrong},
		{get, "", wrong}, // The connection to podlink broke, or the deadline passed.
	} {
		t.Run(string(row.kind)+" "+row.reason, func(t *testing.T) {
			require.Equal(t, row.want, outcomeOf(row.kind, row.reason))
		})
	}
}

// TestHistories: refused calls are omitted, calls of unknown outcome never end, and a list belongs to every link.
func TestHistories(t *testing.T) {
	room := linkName{"u", "room"}
	made := func(k kind, o outcome) call {
		return call{operation: operation{kind: k, uid: "u", service: "room"}, answer: answer{outcome: o}, begin: 1, end: 2}
	}
	for _, row := range []struct {
		name string
		call call
		want map[linkName]int64 // end of the call
	}{
		{"acknowledged", made(set, acknowledged), map[linkName]int64{room: 2}},
		{"unknown", made(set, unknown), map[linkName]int64{room: math.MaxInt64}},
		{"refused", made(set, refused), map[linkName]int64{}},
		{"refused read", made(get, refused), map[linkName]int64{}},
		{"wrong", made(set, wrong), map[linkName]int64{}},
		{"list", made(list, acknowledged), map[linkName]int64{room: 2, {"u", "chat"}: 2}},
	} {
		t.Run(row.name, func(t *testing.T) {
			ends := make(map[linkName]int64)
			for _, h := range historiesOf([]call{row.call}) {
				require.Len(t, h.operations, 1)
				ends[h.linkName] = h.operations[0].Return
			}
			require.Equal(t, row.want, ends)
		})
	}
}
