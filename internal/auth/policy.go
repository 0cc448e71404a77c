package auth

import (
	"context"
	"sync/atomic"
	"time"
)

// policyKey is the key of the policy's file in podlink's configuration.
const policyKey = "auth.policy_file"

// Policy is who may do what: the rules of a file, which is read again when it changes. It is safe for concurrent use.
type Policy struct {
	file       *file
	reloaded   func(key string, err error)
	rules      atomic.Pointer[ruleset]
	generation atomic.Uint64
}

// PolicyOptions configures a Policy.
type PolicyOptions struct {
	Path string
	// Reloaded, if not nil, is called once for each change of the file: err says why it is refused, nil that it is in force.
	Reloaded func(key string, err error)
}

// NewPolicy reads the policy. A file without rules is an error, as is one with a mistake.
func NewPolicy(o PolicyOptions) (*Policy, error) {
	p := &Policy{reloaded: o.Reloaded}
	p.file = newFile(policyKey, o.Path, largestPolicy, silent{}, p.apply)
	if err := p.file.read(); err != nil {
		return nil, err
	}
	return p, nil
}

// silent is the log of a Policy: Reloaded says the same.
type silent struct{}

func (silent) Infof(string, ...any) {}
func (silent) Warnf(string, ...any) {}

func (p *Policy) apply(text []byte) error {
	rules, err := parsePolicy(text)
	if err != nil {
		return err
	}
	p.rules.Store(compile(rules))
	p.generation.Add(1)
	return nil
}

// Run reads the file again when it changes, until ctx ends. What can't be used is refused, and the rules in force stay.
func (p *Policy) Run(ctx context.Context) error {
	ticks := time.NewTicker(reloadEvery)
	defer ticks.Stop()
	refused := "" // why the file is not in force
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticks.C:
			refused = p.reload(refused)
		}
	}
}

// reload returns why the file is not in force; refused is why it was not before.
func (p *Policy) reload(refused string) string {
	before, now := p.Generation(), ""
	err := p.file.read()
	if err != nil {
		now = err.Error()
	}
	if p.reloaded != nil && (now != refused || p.Generation() != before) {
		p.reloaded(policyKey, err)
	}
	return now
}

// Key returns the key of the file in podlink's configuration.
func (p *Policy) Key() string { return p.file.Key() }

// Failing reports whether the file was refused when it was read last.
func (p *Policy) Failing() bool { return p.file.Failing() }

// Failures returns how often the file was refused.
func (p *Policy) Failures() uint64 { return p.file.Failures() }

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
