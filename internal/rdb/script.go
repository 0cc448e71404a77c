package rdb

import (
	"crypto/sha1" //nolint:gosec // Redis names scripts by their SHA-1.
	"encoding/hex"
)

// Access says what a script does to its key, and so how it is sent.
type Access int

// The kinds of access.
const (
	// Read changes nothing: a call whose reply was lost is sent once more.
	Read Access = iota
	// Write is a mutation: a call is sent at most once, and the replicas of Options.WaitReplicas must confirm it.
	Write
	// WriteUnconfirmed is a mutation that no replica must confirm, because little is lost with it.
	WriteUnconfirmed
)

// Script is a Lua script that works on one key.
type Script struct {
	Name    string
	KeyKind string // the kind of key it works on, for traces: never the key itself
	Access  Access

	source, sha string
}

// NewScript returns a script of that source.
func NewScript(name, keyKind string, access Access, source string) *Script {
	sum := sha1.Sum([]byte(source)) //nolint:gosec // Redis names scripts by their SHA-1.
	return &Script{Name: name, KeyKind: keyKind, Access: access, source: source, sha: hex.EncodeToString(sum[:])}
}

// Source returns the script's text, as Redis runs it.
func (s *Script) Source() string { return s.source }

// unconfirmed returns the same script without the wait for replicas.
func (s Script) unconfirmed() *Script {
	if s.Access == Write {
		s.Access = WriteUnconfirmed
	}
	return &s
}
