// Package attacks proves podlink's limits: a process attacks a real podlink over real sockets, while a well-behaved neighbour calls
// it from another address. No call of the neighbour may fail, and its latency has a bound.
//
// Two things to know. The bound is tight only with the build tag faults, for a quiet machine: make test-attacks; without the tag the
// tests show that nothing fails and nothing grows. And the attacker is this test binary, run again with a low priority: a real one
// would not share podlink's processors.
package attacks
