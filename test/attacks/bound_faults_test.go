//go:build faults

package attacks

import "time"

const (
	// attackTime is how long an attack lasts.
	attackTime = 8 * time.Second
	// longAttackTime is that of an attack whose first moment is the worst: a quarter of a second, in which its calls arrive.
	longAttackTime = 4 * attackTime
	// callTimeout is podlink's timeout of a call, the default.
	callTimeout = time.Second
)

// bound returns the bound of the neighbour's latency, given that of a quiet machine.
func bound(quiet time.Duration) time.Duration { return quiet }
