//go:build faults

// Package faults proves what podlink promises when things break: real podlink processes on real Redis processes, a load
// of calls, and faults injected meanwhile. `make test-faults` runs it.
//
// Two things to know before adding a scenario. A run counts what it did and what it saw in a Report, and fails when
// that was too little to prove anything. And a scenario has to be able to fail: variants_test.go runs it on builds and
// settings that are known to be wrong, and it must find each of them.
package faults
