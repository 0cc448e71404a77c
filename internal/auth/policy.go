package auth

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"sync/atomic"
	"time"
)

// policyKey is the key of the policy's file in podlink's configuration.
const policyKey = "auth.policy_file"

// reloadInterval is how often files are read again, unless an option says otherwise.
const reloadInterval = 10 * time.Second

// Policy is who may do what: the rules of a file, which is read again when it changes. It is safe for concurrent use.
type Policy struct {
	path     string
	interval time.Duration
	reloaded func(key string, err error)

	rules      atomic.Pointer[ruleset]
	generation atomic.Uint64
	failing    atomic.Bool
	failures   atomic.Uint64

	content [sha256.Size]byte // of the rules in force; Run alone uses it, as refused
	refused string            // why the file is not in force; empty: it is
}

// PolicyOptions are the options of a Policy.
type PolicyOptions struct {
	Path     string
	Interval time.Duration // at which the file is read again; 0: 10 s
	// Reloaded, if not nil, is called once for each change of the file: err says why it is refused, nil that it is in force.
	Reloaded func(key string, err error)
}

// NewPolicy reads the policy. A file without rules is an error, as is one with a mistake.
func NewPolicy(o PolicyOptions) (*Policy, error) {
	p := &Policy{path: o.Path, interval: o.Interval, reloaded: o.Reloaded}
	if p.interval <= 0 {
		p.interval = reloadInterval
	}
	if _, err := p.read(); err != nil {
		return nil, err
	}
	return p, nil
}

// Run reads the file again when it changes, until ctx ends. What can't be used is refused, and the rules in force stay.
func (p *Policy) Run(ctx context.Context) error {
	ticks := time.NewTicker(p.interval)
	defer ticks.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticks.C:
			p.reload()
		}
	}
}

func (p *Policy) reload() {
	changed, err := p.read()
	p.failing.Store(err != nil)
	text := ""
	if err != nil {
		text = err.Error()
		p.failures.Add(1)
	}
	if p.reloaded != nil && (changed || text != p.refused) {
		p.reloaded(policyKey, err)
	}
	p.refused = text
}

// read puts the rules of the file in force, and reports whether they have changed.
func (p *Policy) read() (changed bool, err error) {
	text, err := readFile(p.path, largestPolicy)
	if err != nil {
		return false, fmt.Errorf("%s: %w", policyKey, err)
	}
	content := sha256.Sum256(text)
	if p.rules.Load() != nil && bytes.Equal(content[:], p.content[:]) {
		return false, nil
	}
	rules, err := parsePolicy(text)
	if err != nil {
		return false, fmt.Errorf("%s: %s: %w", policyKey, p.path, err)
	}
	p.rules.Store(compile(rules))
	p.content = content
	p.generation.Add(1)
	return true, nil
}

// Decide returns what allows a call, or ErrDenied. Even then Grant.Right is the right that was needed.
func (p *Policy) Decide(id Identity, need Need) (Grant, error) { return p.rules.Load().decide(&id, &need) }

// Admin reports whether the caller may use the admin listener.
func (p *Policy) Admin(id Identity) bool {
	admin := false
	p.rules.Load().each(id.Name, func(r *rule) bool {
		admin = r.admin
		return !admin
	})
	return admin
}

// Rate returns the greatest rate of the caller's rules; 0: none of them has one.
func (p *Policy) Rate(id Identity) float64 {
	rate := 0.0
	p.rules.Load().each(id.Name, func(r *rule) bool {
		rate = max(rate, r.rate)
		return true
	})
	return rate
}

// Generation returns a number that changes with the rules.
func (p *Policy) Generation() uint64 { return p.generation.Load() }

// Key returns the key of the file in podlink's configuration.
func (p *Policy) Key() string { return policyKey }

// Failing reports whether the file was refused when it was read last.
func (p *Policy) Failing() bool { return p.failing.Load() }

// Failures returns how often the file was refused.
func (p *Policy) Failures() uint64 { return p.failures.Load() }
