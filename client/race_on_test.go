//go:build race

package client

// RaceEnabled reports whether the tests run with the race detector, which makes virtual time several times slower.
const RaceEnabled = true
