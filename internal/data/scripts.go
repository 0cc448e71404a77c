package data

import (
	"embed"

	"podlink/internal/rdb"
)

// assembled are the scripts as `make generate` writes them. They are embedded as they are, so a line number in an error of
// Redis is one of the file.
//
//go:embed lua/assembled/*.lua
var assembled embed.FS

// The kinds of key. Metrics and spans name them, keys.go writes them.
const (
	keyLink     = "link"
	keyPods     = "pods"
	keyWorkload = "workload"
)

// scripts lists every script: what register was called with, in that order.
var scripts []*rdb.Script

// The scripts; each works on one key. A line here is all that Go has to know of one: kind and access are said nowhere else,
// and a test compares them with the header and the body.
var (
	scriptSetLink       = register("statefulSetLink", keyLink, rdb.Write)
	scriptTrySetLink    = register("statefulTrySetLink", keyLink, rdb.Write)
	scriptSetIfAbsent   = register("statefulSetLinkIfAbsent", keyLink, rdb.Write)
	scriptComputeLink   = register("statefulComputeLinkIfAbsent", keyLink, rdb.Write)
	scriptGetLink       = register("statefulGetLink", keyLink, rdb.Read)
	scriptGetPersist    = register("statefulGetLinkIfPersist", keyLink, rdb.Read)
	scriptRemoveLink    = register("statefulRemoveLink", keyLink, rdb.Write)
	scriptRemoveWithID  = register("statefulRemoveLinkWithId", keyLink, rdb.Write)
	scriptGetServices   = register("statefulGetLinkService", keyLink, rdb.Read)
	scriptSetState      = register("statefulSetState", keyPods, rdb.Write)
	scriptGetService    = register("statefulGetService", keyPods, rdb.Read)
	scriptGetServicePod = register("statefulGetServicePod", keyPods, rdb.Read)
	scriptRemoveState   = register("statefulRemoveState", keyPods, rdb.Write)
	scriptReservePod    = register("statefulReservePod", keyPods, rdb.WriteUnconfirmed)
	scriptReleasePod    = register("statefulReleasePod", keyPods, rdb.WriteUnconfirmed)
	scriptSetWorkload   = register("statefulSetWorkload", keyWorkload, rdb.Write)
)

// register adds a script to scripts. Its file is part of the binary: a missing one is a fault of the build, found by the
// first test.
func register(name, keyKind string, access rdb.Access) *rdb.Script {
	source, err := assembled.ReadFile("lua/assembled/" + name + ".lua")
	if err != nil {
		panic(err) //nolint:forbidigo // The binary lacks a part of itself.
	}
	script := rdb.NewScript(name, keyKind, access, string(source))
	scripts = append(scripts, script)
	return script
}
