//go:build faults

package faults

import (
	"fmt"

	"github.com/anishathalye/porcupine"
)

// pods are the pods of all links. All of them are READY during the whole run.
var pods = []int32{0, 1, 2}

// maxElapsed bounds the seconds of a run, and so how much of its time a temporary link may have used up.
const maxElapsed = 900

// state is a link in the model.
type state struct {
	pod     int32
	seconds int32 // as it was set: forever, gone, or a number of seconds
	// epoch is the link's if exact, else its lower bound: no reply has had it yet. Without a link, every later epoch must be
	// greater.
	epoch int64
	exact bool
	claim int64 // 0: none
}

var noLink = state{pod: noPod, seconds: gone}

func (s state) exists() bool { return s.pod != noPod }

// effect is the effect of an operation on a link, and the reply that it must have.
type effect struct {
	next     state
	applied  bool
	previous int32
	computed string
	mismatch bool // the reply is EPOCH_MISMATCH
	replaced bool // the reply is SUPERSEDED
	hidden   bool // the reply has no link although there is one
}

// effects returns the possible effects of the operation. There are several if they depend on an epoch that no reply has had,
// or on podlink's choice of a pod.
func effects(s state, op operation) []effect {
	unchanged := effect{next: s, previous: s.pod}
	switch op.kind {
	case set:
		switch {
		case op.claim == 0 || s.pod != op.pod || s.claim < op.claim:
			return conditional(s, op, func(s state) effect { return bound(s, op) })
		case s.claim == op.claim: // Whatever epoch it expects.
			return []effect{bound(s, op)}
		default:
			unchanged.replaced = true
			return []effect{unchanged}
		}
	case trySet:
		if s.exists() && s.seconds == forever && s.pod != op.pod {
			return []effect{unchanged}
		}
		return []effect{bound(s, op)}
	case setIfAbsent:
		if s.exists() {
			return []effect{unchanged}
		}
		return []effect{bound(s, op)}
	case compute:
		return computed(s, op)
	case remove:
		return conditional(s, op, func(s state) effect { return unbound(s, op) })
	case removeWithID:
		if s.pod != op.pod {
			return []effect{unchanged}
		}
		return []effect{unbound(s, op)}
	case getPersist:
		unchanged.hidden = s.seconds != forever
	case get, list:
	}
	return []effect{unchanged}
}

// bound is the effect of a link to op's pod. Another pod, or another process that claims the link, has a new epoch, greater than
// every earlier one.
func bound(s state, op operation) effect {
	next := state{pod: op.pod, seconds: op.seconds, epoch: s.epoch, exact: s.exact, claim: s.claim}
	if s.pod != op.pod || op.claim != 0 && op.claim != s.claim {
		next.epoch, next.exact, next.claim = s.epoch+1, false, op.claim
	}
	return effect{next: next, applied: true, previous: s.pod}
}

// unbound is the effect of a removal.
func unbound(s state, op operation) effect {
	e := effect{next: s, applied: s.exists(), previous: s.pod}
	switch {
	case !s.exists():
	case op.seconds > 0:
		e.next.seconds, e.next.claim = op.seconds, 0
	default:
		e.next = noLink
		e.next.epoch = s.epoch
	}
	return e
}

// computed returns the effects of a compute. All pods are usable, so it keeps a link, and creates one to any pod.
func computed(s state, op operation) []effect {
	if s.exists() {
		return []effect{{next: s, previous: s.pod, computed: "EXISTING"}}
	}
	var all []effect
	for _, pod := range pods {
		op.pod = pod
		e := bound(s, op)
		e.computed = "CREATED"
		all = append(all, e)
	}
	return all
}

// conditional returns the effects of an operation that may expect an epoch.
func conditional(s state, op operation, apply func(state) effect) []effect {
	mismatch := effect{next: s, previous: s.pod, mismatch: true}
	holds := false
	switch {
	case op.expected == noEpoch:
		holds = true
	case !s.exists():
		holds = op.expected == 0
	case s.exact:
		holds = op.expected == s.epoch
	case op.expected >= s.epoch:
		known := s
		known.epoch, known.exact = op.expected, true
		return []effect{apply(known), mismatch}
	}
	if holds {
		return []effect{apply(s)}
	}
	return []effect{mismatch}
}

// step returns the states that the link may have after the operation; none if the answer is impossible.
func step(s state, op operation, a answer) []state {
	var next []state
	for _, e := range effects(s, op) {
		if a.outcome == unknown {
			next = append(next, e.next)
			continue
		}
		if after, possible := e.agrees(op, a); possible {
			next = append(next, after)
		}
	}
	return next
}

// agrees reports whether the answer is the one that the effect must have. The answer may make the epoch exact.
func (e effect) agrees(op operation, a answer) (after state, possible bool) {
	if e.mismatch != (a.reason == "EPOCH_MISMATCH") || e.replaced != (a.reason == "SUPERSEDED") {
		return state{}, false
	}
	if e.replaced {
		return e.next, a.generation == e.next.claim
	}
	if !e.mismatch && a.reason != "" {
		return state{}, false
	}
	if e.applied != a.applied || e.computed != a.computed || a.previous != nil && e.previous != *a.previous {
		return state{}, false
	}
	got := a.link
	if op.kind == list {
		l, found := a.links[op.service]
		if !found {
			l = link{pod: noPod, seconds: gone}
		}
		got = &l
	}
	if got == nil {
		return e.next, !e.mismatch
	}
	return e.agreesOn(op, *got)
}

// agreesOn compares the link in a reply with the model's.
func (e effect) agreesOn(op operation, l link) (after state, possible bool) {
	if e.hidden || !e.next.exists() {
		return e.next, l.pod == noPod && l.epoch == 0 && l.claim == 0 && (e.mismatch || l.seconds == gone)
	}
	after = e.next
	if after.exact {
		possible = l.epoch == after.epoch
	} else {
		possible = l.epoch >= after.epoch
	}
	after.epoch, after.exact = l.epoch, true
	possible = possible && l.claim == after.claim
	if e.mismatch {
		return after, possible && l.pod == after.pod && l.epoch != op.expected
	}
	return after, possible && l.pod == after.pod && lasts(l.seconds, after.seconds)
}

// lasts reports whether a link that was set for given seconds may have left seconds left.
func lasts(left, given int32) bool {
	if given == forever {
		return left == forever
	}
	return left <= given && left > given-maxElapsed
}

// model returns porcupine's model of a link.
func model() porcupine.Model {
	nondeterministic := porcupine.NondeterministicModel{
		Init: func() []any { return []any{noLink} },
		Step: func(s, input, output any) []any {
			var next []any
			for _, after := range step(s.(state), input.(operation), output.(answer)) {
				next = append(next, after)
			}
			return next
		},
		Hash: func(s any) uint64 { return uint64(s.(state).epoch)*31 + uint64(s.(state).pod) },
		DescribeOperation: func(input, output any) string {
			return describeOperation(input.(operation)) + " -> " + describeAnswer(output.(answer))
		},
		DescribeState: func(s any) string { return describeState(s.(state)) },
	}
	return nondeterministic.ToModel()
}

func describeOperation(op operation) string {
	text := string(op.kind)
	switch op.kind {
	case set, trySet, setIfAbsent:
		text += fmt.Sprintf(" pod %d for %d s", op.pod, op.seconds)
	case compute:
		text += fmt.Sprintf(" for %d s", op.seconds)
	case removeWithID:
		text += fmt.Sprintf(" pod %d keep %d s", op.pod, op.seconds)
	case remove:
		text += fmt.Sprintf(" keep %d s", op.seconds)
	case get, getPersist, list:
	}
	if op.claim != 0 {
		text += fmt.Sprintf(" claimed by %d", op.claim)
	}
	if (op.kind == set || op.kind == remove) && op.expected != noEpoch {
		text += fmt.Sprintf(" if epoch %d", op.expected)
	}
	return text
}

func describeAnswer(a answer) string {
	if a.outcome == unknown {
		return "?"
	}
	text := fmt.Sprintf("%s%s applied %t", a.reason, a.computed, a.applied)
	if a.previous != nil {
		text += fmt.Sprintf(" previous %d", *a.previous)
	}
	if a.link != nil {
		text += fmt.Sprintf(" link %+v", *a.link)
	}
	for service, l := range a.links {
		text += fmt.Sprintf(" %s %+v", service, l)
	}
	return text
}

func describeState(s state) string {
	if !s.exists() {
		return fmt.Sprintf("no link, next epoch > %d", s.epoch)
	}
	relation := ">="
	if s.exact {
		relation = "="
	}
	return fmt.Sprintf("pod %d for %d s, epoch %s %d, claim %d", s.pod, s.seconds, relation, s.epoch, s.claim)
}
