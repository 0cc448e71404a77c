package data

import (
	"crypto/sha1" //nolint:gosec // Redis names scripts by their SHA-1.
	"embed"
	"encoding/hex"
)

// assembled are the scripts as `make generate` writes them. They are embedded as they are, so a line number in an error of
// Redis is one of the file.
//
//go:embed lua/assembled/*.lua
var assembled embed.FS

// script is one Lua script. The header of its file says which arguments it takes, and every reply.
type script struct {
	name   string
	kind   string // of its key
	source string
	sha    string
	writes bool
	// confirmed is false for what replicas need not confirm: reads, and the counts by which pods are chosen.
	confirmed bool
}

// unconfirmed returns the same script, for which no replica is waited for.
func (sc script) unconfirmed() *script {
	sc.confirmed = false
	return &sc
}

// The kinds of key. Metrics and spans name them, keys.go writes them.
const (
	keyLink     = "link"
	keyPods     = "pods"
	keyWorkload = "workload"
)

// access is what a script does to its key, and with that how it is sent.
type access int

const (
	accessRead             access = iota // changes nothing: it may be repeated
	accessWrite                          // is sent at most once, and replicas confirm it where the configuration says so
	accessWriteUnconfirmed               // is sent at most once; no replica confirms it, because little is lost with it
)

// scripts lists every script: what register was called with, in that order.
var scripts []*script

// The scripts; each works on one key. A line here is all that Go has to know of one: kind and access are said nowhere else,
// and a test compares them with the header and the body.
var (
	scriptSetLink       = register("statefulSetLink", keyLink, accessWrite)
	scriptTrySetLink    = register("statefulTrySetLink", keyLink, accessWrite)
	scriptSetIfAbsent   = register("statefulSetLinkIfAbsent", keyLink, accessWrite)
	scriptComputeLink   = register("statefulComputeLinkIfAbsent", keyLink, accessWrite)
	scriptGetLink       = register("statefulGetLink", keyLink, accessRead)
	scriptGetPersist    = register("statefulGetLinkIfPersist", keyLink, accessRead)
	scriptRemoveLink    = register("statefulRemoveLink", keyLink, accessWrite)
	scriptRemoveWithID  = register("statefulRemoveLinkWithId", keyLink, accessWrite)
	scriptGetServices   = register("statefulGetLinkService", keyLink, accessRead)
	scriptSetState      = register("statefulSetState", keyPods, accessWrite)
	scriptGetService    = register("statefulGetService", keyPods, accessRead)
	scriptGetServicePod = register("statefulGetServicePod", keyPods, accessRead)
	scriptRemoveState   = register("statefulRemoveState", keyPods, accessWrite)
	scriptReservePod    = register("statefulReservePod", keyPods, accessWriteUnconfirmed)
	scriptReleasePod    = register("statefulReleasePod", keyPods, accessWriteUnconfirmed)
	scriptSetWorkload   = register("statefulSetWorkload", keyWorkload, accessWrite)
)

// register adds a script to scripts. Its file is part of the binary: a missing one is a fault of the build, found by the
// first test.
func register(name, kind string, a access) *script {
	source, err := assembled.ReadFile("lua/assembled/" + name + ".lua")
	if err != nil {
		panic(err) //nolint:forbidigo // The binary lacks a part of itself.
	}
	sum := sha1.Sum(source) //nolint:gosec // Redis names scripts by their SHA-1.
	sc := &script{
		name: name, kind: kind, source: string(source), sha: hex.EncodeToString(sum[:]),
		writes: a != accessRead, confirmed: a == accessWrite,
	}
	scripts = append(scripts, sc)
	return sc
}

func scriptNames() []string {
	names := make([]string, len(scripts))
	for i, sc := range scripts {
		names[i] = sc.name
	}
	return names
}
