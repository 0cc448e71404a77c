//go:build fleet

// Package fleet proves what podlink promises of a large fleet: with a million links in a real Redis, lists have every link once and answer
// soon, a VERIFY finds exactly the faults that were planted, and a RELOCATE loses and doubles nobody, also when the podlinks that run it
// are killed. `make test-fleet` runs it.
//
// Two things to know before you change it. The steps share one fleet, because filling it takes longest. And the times that it prints say
// something only of a quiet machine; those that fail the test are far above the targets.
package fleet
