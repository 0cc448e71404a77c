// Package sim simulates callers and pods with real processes: podlinks, a Redis, and pods that are killed and frozen by signals.
//
// It has the build tag sim: `make test-sim` runs it. The plan of the faults repeats with its seed; what the processes make of it
// need not. The simulator in virtual time, in client/, repeats exactly.
package sim
