package data

import (
	"embed"

	"podlink/internal/rdb"
)

// assembled has the scripts that `make generate` writes. They are embedded unchanged, so that a line number in an error of
// Redis is a line of the file.
//
//go:embed lua/assembled/*.lua
var assembled embed.FS

// The kinds of keys, as used in metrics and spans. keys.go builds the keys.
const (
	keyLink     = "link"
	keyService  = "service"
	keyWorkload = "workload"
)

// scripts lists every registered script, in the order of registration.
var scripts []*rdb.Script

// The scripts; each works on one key. Kind and access of a script are defined here only, and a test compares them with its
// header and its body.
var (
	scriptSetLink        = register("statefulSetLink", keyLink, rdb.Write)
	scriptTrySetLink     = register("statefulTrySetLink", keyLink, rdb.Write)
	scriptSetIfAbsent    = register("statefulSetLinkIfAbsent", keyLink, rdb.Write)
	scriptComputeLink    = register("statefulComputeLinkIfAbsent", keyLink, rdb.Write)
	scriptGetLink        = register("statefulGetLink", keyLink, rdb.Read)
	scriptGetPersist     = register("statefulGetLinkIfPersist", keyLink, rdb.Read)
	scriptRemoveLink     = register("statefulRemoveLink", keyLink, rdb.Write)
	scriptRemoveWithID   = register("statefulRemoveLinkWithId", keyLink, rdb.Write)
	scriptGetServices    = register("statefulGetLinkService", keyLink, rdb.Read)
	scriptSetState       = register("statefulSetState", keyService, rdb.Write)
	scriptGetService     = register("statefulGetService", keyService, rdb.Read)
	scriptGetServicePod  = register("statefulGetServicePod", keyService, rdb.Read)
	scriptRemoveState    = register("statefulRemoveState", keyService, rdb.Write)
	scriptCordonPod      = register("statefulCordonPod", keyService, rdb.Write)
	scriptReservePod     = register("statefulReservePod", keyService, rdb.WriteUnconfirmed)
	scriptReleasePod     = register("statefulReleasePod", keyService, rdb.WriteUnconfirmed)
	scriptSetWorkload    = register("statefulSetWorkload", keyWorkload, rdb.Write)
	scriptRemoveWorkload = register("statefulRemoveWorkload", keyWorkload, rdb.Write)
)

// register adds a script to scripts. It panics if the file is missing in the binary, which is a build error that every test
// finds.
func register(name, keyKind string, access rdb.Access) *rdb.Script {
	source, err := assembled.ReadFile("lua/assembled/" + name + ".lua")
	if err != nil {
		panic(err) //nolint:forbidigo // The binary is incomplete.
	}
	script := rdb.NewScript(name, keyKind, access, string(source))
	scripts = append(scripts, script)
	return script
}
