//go:build !faults

package attacks

import "time"

const (
	// attackTime is how long an attack lasts.
	attackTime = 2 * time.Second
	// longAttackTime is that of an attack whose first moment is the worst.
	longAttackTime = attackTime
	// callTimeout is podlink's timeout of a call: a busy machine must fail none.
	callTimeout = 20 * time.Second
)

// bound returns the bound of the neighbour's latency, given that of a quiet machine.
func bound(time.Duration) time.Duration { return callTimeout }
