//go:build bench

// Package bench compares podlink with its alternatives: the driver alone, the predecessors' way of calling Redis, and a Kratos
// server that answers from memory. `make bench` runs it, and `make bench-quick` a small part of it.
//
// Two rules for a new measurement. Rivals take turns within one run, and the figure is their ratio, because speed differs
// between machines and from minute to minute. And every figure keeps the values of all runs, to show how far they scatter.
package bench
