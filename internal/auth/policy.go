package auth

import (
	"context"
	"sync/atomic"
)

// Policy is who may do what: the rules of a file, which is read again when it changes. It is safe for concurrent use.
type Policy struct {
	*file

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
	p := new(Policy)
	p.file = newFile("auth.policy_file", o.Path, largestPolicy, o.Reloaded, p.use)
	if err := p.first(); err != nil {
		return nil, err
	}
	return p, nil
}

// use puts the rules in a text in force.
func (p *Policy) use(text []byte) error {
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
	p.run(ctx)
	return nil
}

// Decide returns what allows a call, or ErrDenied. Even then Grant.Right is the right that was needed.
func (p *Policy) Decide(id Identity, need Need) (Grant, error) {
	return p.rules.Load().decide(&id, &need)
}

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
