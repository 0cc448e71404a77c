//go:build faults

// Package faults proves podlink's guarantees under faults: real podlink processes on real Redis processes serve a load of
// calls while a test injects faults. `make test-faults` runs it.
//
// Two things to know before you add a scenario. Its Report counts operations and faults, and fails a run with too few of
// them to prove anything. And a scenario must be able to fail: it also runs on known-bad builds (patches_test.go) or settings,
// and must find the fault of each.
package faults
