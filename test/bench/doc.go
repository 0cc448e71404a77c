//go:build bench

// Package bench measures podlink side by side with what it competes with: the driver alone, the predecessors' way of
// calling Redis, and a Kratos server that answers from memory. `make bench` runs it, `make bench-quick` a small part of it.
//
// Two things to know before adding a measurement. What is compared runs in turns in one run, and its ratio is the figure:
// machines differ, and the same one differs from minute to minute. And every figure keeps the values of all its runs, so
// that its median can be told from luck.
package bench
