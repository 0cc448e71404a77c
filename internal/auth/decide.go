package auth

import (
	"errors"
	"fmt"
	"math"
	"strings"
	"sync"
)

// ErrDenied is the error of a call that the policy does not allow. It is wrapped by why: for podlink's log and the audit log alone, as
// a caller could learn about rules and other callers from it.
var ErrDenied = errors.New("the policy does not allow the call")

// Need is what a call needs, and what it names.
type Need struct {
	Right     Right
	Namespace string
	// Service is the service that the call names. Services are those of a call that names several: a rule must have all of them.
	Service  string
	Services []string
	// AnyService is for a call about all services of the namespace: one that the caller has a right in is enough, and
	// Grant.Sees says which.
	AnyService bool
	// AnyNamespace is AnyService for a call about the services of all namespaces.
	AnyNamespace bool
	// Pods are those that the call reports, or links users to.
	Pods Pods
	// Persistent says that the call may make a link that does not expire.
	Persistent bool
}

// Pods are the pods that a call names: none, one or several. The zero value is none.
type Pods struct {
	count podCount
	pod   int32
}

type podCount uint8

const (
	noPod podCount = iota
	onePod
	severalPods
)

// Add adds a pod.
func (p *Pods) Add(pod int32) {
	switch {
	case p.count == noPod:
		p.count, p.pod = onePod, pod
	case p.pod != pod:
		p.count = severalPods
	}
}

// only reports whether the pods are none, or that one.
func (p *Pods) only(pod int32) bool { return p.count == noPod || p.count == onePod && p.pod == pod }

// rule is a compiled rule of a policy.
type rule struct {
	name       string // its place in the file: rules[3]
	rights     rights // of the role, without those that the rule takes away
	pod        bool   // as in role
	admin      bool   // as in role
	namespaces patterns
	services   patterns
	podPrefix  string // what comes before the ordinal in the name of a pod; role pod only
	persistent bool   // links that don't expire may be made
	rate       float64
}

// grants reports whether the rule grants the right, and for a rule of role pod to which pod.
func (r *rule) grants(id *Identity, need *Need) (own int32, granted bool) {
	if !r.rights.has(need.Right) || need.Persistent && !r.persistent {
		return 0, false
	}
	if !r.pod {
		return 0, true
	}
	own, proven := r.ordinal(id.Pod)
	return own, proven && need.Pods.only(own)
}

// refusal returns why the rule, which is for the caller and what it names, does not grant the right.
func (r *rule) refusal(id *Identity, need *Need) string {
	switch {
	case !r.rights.has(need.Right):
		return fmt.Sprintf("%s does not give the right %s", r.name, need.Right)
	case need.Persistent && !r.persistent:
		return r.name + " allows only links that expire"
	case id.Pod == "":
		return r.name + " is for pods, and the caller has not proven to be one"
	}
	if _, proven := r.ordinal(id.Pod); !proven {
		return fmt.Sprintf("%s is for pods named %s%s, and the caller is %s", r.name, r.podPrefix, ordinalMark, id.Pod)
	}
	return fmt.Sprintf("%s is for what the pod does itself, and the caller is %s", r.name, id.Pod)
}

// denied returns the error of a call that none of the rules allows, all of which are for the caller and what it names.
func denied(rules []*rule, id *Identity, need *Need) error {
	if len(rules) == 0 {
		return fmt.Errorf("%w: no rule is for this caller, namespace and service", ErrDenied)
	}
	var reasons []string
	for _, r := range rules[:min(len(rules), mostReasons)] {
		reasons = append(reasons, r.refusal(id, need))
	}
	return fmt.Errorf("%w: %s", ErrDenied, strings.Join(reasons, "; "))
}

// mostReasons is how many rules an error names.
const mostReasons = 3

// covers reports whether the rule is for what the call names.
func (r *rule) covers(need *Need) bool {
	switch {
	case need.AnyNamespace:
		return true
	case !r.namespaces.match(need.Namespace):
		return false
	case need.AnyService:
		return true
	case len(need.Services) == 0:
		return r.services.match(need.Service)
	}
	for _, service := range need.Services {
		if !r.services.match(service) {
			return false
		}
	}
	return true
}

// ordinal returns the ordinal in the name of a pod: 2 for chat-2.
func (r *rule) ordinal(pod string) (int32, bool) {
	digits, ok := strings.CutPrefix(pod, r.podPrefix)
	if !ok || digits == "" || len(digits) > 10 || digits[0] == '0' && digits != "0" {
		return 0, false
	}
	var n int64
	for i := range len(digits) {
		if digits[i] < '0' || digits[i] > '9' {
			return 0, false
		}
		n = n*10 + int64(digits[i]-'0')
	}
	return int32(n), n <= math.MaxInt32
}

// patterns are literals, and prefixes: what comes before the * at their end.
type patterns struct {
	literals []string
	prefixes []string
}

func (p *patterns) match(text string) bool {
	for _, literal := range p.literals {
		if literal == text {
			return true
		}
	}
	for _, prefix := range p.prefixes {
		if strings.HasPrefix(text, prefix) {
			return true
		}
	}
	return false
}

// ruleset is a compiled policy.
type ruleset struct {
	byName   map[string][]*rule // by a literal of who
	byPrefix []whoPrefix        // by a pattern of who
	who      []whoText          // as in the file

	mu    sync.RWMutex
	known map[place][]*rule // the rules of those who have called, at most mostPlaces
}

type whoPrefix struct {
	prefix string
	rules  []*rule
}

// place is a caller and what it calls about.
type place struct{ who, namespace, service string }

const (
	mostPlaces  = 10_000
	longestName = 128
)

// each calls do for each rule whose who matches the name, until it returns false.
func (s *ruleset) each(name string, do func(*rule) bool) {
	for _, r := range s.byName[name] {
		if !do(r) {
			return
		}
	}
	for i := range s.byPrefix {
		if strings.HasPrefix(name, s.byPrefix[i].prefix) {
			for _, r := range s.byPrefix[i].rules {
				if !do(r) {
					return
				}
			}
		}
	}
}

// of returns the rules that are for the caller and what it names.
func (s *ruleset) of(who string, need *Need) []*rule {
	var found []*rule
	s.each(who, func(r *rule) bool {
		if r.covers(need) {
			found = append(found, r)
		}
		return true
	})
	return found
}

// ofPlace is of, for a call that names one service. What it has found once it finds at once.
func (s *ruleset) ofPlace(who string, need *Need) []*rule {
	at := place{who, need.Namespace, need.Service}
	s.mu.RLock()
	found, ok := s.known[at]
	s.mu.RUnlock()
	if ok {
		return found
	}
	found = s.of(who, need)
	if len(found) == 0 || len(at.namespace) > longestName || len(at.service) > longestName {
		return found // Names that no rule has, or that can't be, must not fill the memory.
	}
	at.namespace, at.service = strings.Clone(at.namespace), strings.Clone(at.service)
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.known) >= mostPlaces {
		clear(s.known)
	}
	s.known[at] = found
	return found
}

// decide returns what allows the call: the first rule that does, and rather one that does not bind the caller to a pod.
func (s *ruleset) decide(id *Identity, need *Need) (Grant, error) {
	var rules, seen []*rule
	list := need.AnyService || need.AnyNamespace
	if list || len(need.Services) > 0 {
		rules = s.of(id.Name, need)
	} else {
		rules = s.ofPlace(id.Name, need)
	}
	var found *rule
	var pod int32
	for _, r := range rules {
		own, granted := r.grants(id, need)
		if !granted {
			continue
		}
		if found == nil || found.pod && !r.pod {
			found, pod = r, own
		}
		if list {
			seen = append(seen, r)
		} else if !r.pod {
			break
		}
	}
	if found == nil {
		return Grant{Right: need.Right}, denied(rules, id, need)
	}
	grant := Grant{Right: need.Right, Rule: found.name, seen: seen}
	switch {
	case found.pod && need.Right == Bind:
		own := pod
		grant.Own = &own
	case !found.pod && need.Right == Report:
		grant.Right = Operate // It reports a pod that is not the caller.
	}
	return grant, nil
}

// Sees reports whether the caller may see the service. It is for calls about all services of a namespace, or of all.
func (g *Grant) Sees(namespace, service string) bool {
	for _, r := range g.seen {
		if r.namespaces.match(namespace) && r.services.match(service) {
			return true
		}
	}
	return false
}
