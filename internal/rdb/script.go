package rdb

import (
	"crypto/sha1" //nolint:gosec // Redis names scripts by their SHA-1.
	"encoding/hex"
)

// Access is what a script does to its key. It decides how the script is sent.
type Access int

// The kinds of access.
const (
	// Read changes nothing: a call whose reply was lost is retried once.
	Read Access = iota
	// Write is a mutation: it is sent at most once, and Options.WaitReplicas replicas must confirm it.
	Write
	// WriteUnconfirmed is a mutation that needs no confirmation by replicas, because its loss does little harm.
	WriteUnconfirmed
)

// Script is a Lua script that works on one key.
type Script struct {
	Name    string
	KeyKind string // the kind of its key, for traces, which must not contain keys
	Access  Access
	// Weight is the script's estimated cost, about a microsecond of Redis' time each, without its arguments. It bounds the
	// batches that the script is part of.
	Weight int

	source, sha string
}

// defaultWeight is the weight of a script that reads and writes a few fields of one key.
const defaultWeight = 10

// NewScript returns a script with the source, and the weight of a simple one.
func NewScript(name, keyKind string, access Access, source string) *Script {
	sum := sha1.Sum([]byte(source)) //nolint:gosec // Redis names scripts by their SHA-1.
	return &Script{
		Name: name, KeyKind: keyKind, Access: access, Weight: defaultWeight, source: source, sha: hex.EncodeToString(sum[:]),
	}
}

// Source returns the source that Redis runs.
func (s *Script) Source() string { return s.source }

// unconfirmed returns the script without the confirmation by replicas.
func (s Script) unconfirmed() *Script {
	if s.Access == Write {
		s.Access = WriteUnconfirmed
	}
	return &s
}
