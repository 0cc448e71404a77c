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
	keyFeed     = "feed"
	keyIndex    = "index"
	keyIndexed  = "indexed"
	keyServices = "services"
	keyWriters  = "writers"
	keyFleet    = "fleet"
	keyLease    = "lease"
	keyJob      = "job"
	keyJobs     = "jobs"
	keyJobQueue = "jobqueue"
)

// scripts lists every registered script, in the order of registration.
var scripts []*rdb.Script

// The scripts; each works on one key. Kind and access of a script are defined here only, and a test compares them with its
// header and its body. The last number is its weight: about the microseconds of Redis that it takes, arguments apart.
var (
	scriptSetLink        = register("statefulSetLink", keyLink, rdb.Write, 10)
	scriptTrySetLink     = register("statefulTrySetLink", keyLink, rdb.Write, 10)
	scriptSetIfAbsent    = register("statefulSetLinkIfAbsent", keyLink, rdb.Write, 10)
	scriptComputeLink    = register("statefulComputeLinkIfAbsent", keyLink, rdb.Write, 10)
	scriptGetLink        = register("statefulGetLink", keyLink, rdb.Read, 10)
	scriptGetPersist     = register("statefulGetLinkIfPersist", keyLink, rdb.Read, 10)
	scriptRemoveLink     = register("statefulRemoveLink", keyLink, rdb.Write, 10)
	scriptRemoveWithID   = register("statefulRemoveLinkWithId", keyLink, rdb.Write, 10)
	scriptGetServices    = register("statefulGetLinkService", keyLink, rdb.Read, 50)
	scriptSetState       = register("statefulSetState", keyService, rdb.Write, 100)
	scriptGetService     = register("statefulGetService", keyService, rdb.Read, 1000)
	scriptGetServicePod  = register("statefulGetServicePod", keyService, rdb.Read, 30)
	scriptRemoveState    = register("statefulRemoveState", keyService, rdb.Write, 50)
	scriptCordonPod      = register("statefulCordonPod", keyService, rdb.Write, 50)
	scriptReservePod     = register("statefulReservePod", keyService, rdb.WriteUnconfirmed, 20)
	scriptReservePods    = register("statefulReservePods", keyService, rdb.WriteUnconfirmed, 1000)
	scriptReleasePod     = register("statefulReleasePod", keyService, rdb.WriteUnconfirmed, 30)
	scriptSetWorkload    = register("statefulSetWorkload", keyWorkload, rdb.Write, 10)
	scriptRemoveWorkload = register("statefulRemoveWorkload", keyWorkload, rdb.Write, 10)
	scriptAppendFeed     = register("statefulAppendFeed", keyFeed, rdb.WriteUnconfirmed, 20)
	scriptUpdateIndex    = register("statefulUpdateIndex", keyIndex, rdb.WriteUnconfirmed, 20)
	scriptAddIndexed     = register("statefulAddIndexed", keyIndexed, rdb.WriteUnconfirmed, 10)
	scriptAddService     = register("statefulAddService", keyServices, rdb.WriteUnconfirmed, 10)
	scriptBeat           = register("statefulBeat", keyWriters, rdb.WriteUnconfirmed, 30)
	scriptLeave          = register("statefulLeave", keyWriters, rdb.WriteUnconfirmed, 10)
	scriptAddGap         = register("statefulAddGap", keyFleet, rdb.WriteUnconfirmed, 10)
	scriptCoverGaps      = register("statefulCoverGaps", keyFleet, rdb.WriteUnconfirmed, 10)
	scriptTakeLease      = register("statefulTakeLease", keyLease, rdb.WriteUnconfirmed, 10)
	scriptReleaseLease   = register("statefulReleaseLease", keyLease, rdb.WriteUnconfirmed, 10)
	scriptCreateJob      = register("statefulCreateJob", keyJob, rdb.Write, 20)
	scriptTakeJob        = register("statefulTakeJob", keyJob, rdb.WriteUnconfirmed, 20)
	scriptSaveJob        = register("statefulSaveJob", keyJob, rdb.WriteUnconfirmed, 20)
	scriptCancelJob      = register("statefulCancelJob", keyJob, rdb.Write, 20)
	scriptListJob        = register("statefulListJob", keyJobs, rdb.WriteUnconfirmed, 10)
	scriptQueueJob       = register("statefulQueueJob", keyJobQueue, rdb.Write, 10)
	scriptUnqueueJob     = register("statefulUnqueueJob", keyJobQueue, rdb.WriteUnconfirmed, 10)
)

// register adds a script to scripts. It panics if the file is missing in the binary, which is a build error that every test
// finds.
func register(name, keyKind string, access rdb.Access, weight int) *rdb.Script {
	source, err := assembled.ReadFile("lua/assembled/" + name + ".lua")
	if err != nil {
		panic(err) //nolint:forbidigo // The binary is incomplete.
	}
	script := rdb.NewScript(name, keyKind, access, string(source))
	script.Weight = weight
	scripts = append(scripts, script)
	return script
}
