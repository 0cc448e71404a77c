package rdb

import (
	"crypto/sha1" //nolint:gosec // Redis names scripts by their SHA-1.
	"encoding/hex"
)

// Access says what a script does to its key. It decides whether a call may be repeated.
type Access bool

// The two kinds of access.
const (
	Read  Access = false // a call whose reply was lost is sent once more
	Write Access = true  // a call is sent at most once
)

// Script is a Lua script that works on one key.
type Script struct {
	Name    string
	KeyKind string // the kind of key it works on, for traces: never the key itself
	Access  Access
	// Confirmed is set for a mutation that the replicas of Options.WaitReplicas must confirm.
	Confirmed bool

	source, sha string
}

// NewScript returns a script of that source.
func NewScript(name, keyKind string, access Access, confirmed bool, source string) *Script {
	sum := sha1.Sum([]byte(source)) //nolint:gosec // Redis names scripts by their SHA-1.
	return &Script{
		Name: name, KeyKind: keyKind, Access: access, Confirmed: confirmed,
		source: source, sha: hex.EncodeToString(sum[:]),
	}
}

// Source returns the script's text, as Redis runs it.
func (s *Script) Source() string { return s.source }

// unconfirmed returns the same script without the wait for replicas.
func (s Script) unconfirmed() *Script {
	s.Confirmed = false
	return &s
}
