package data

import "podlink/internal/rdb"

// layoutName is the name of the layout that the scripts and keys.go give the store. Another one is needed as soon as an older
// podlink would misread what a newer one writes, or the reverse.
const layoutName = "2"

// SelfTest returns the self-test that a store must pass to be ready. keys is the keyspace of the repositories.
func SelfTest(keys Keyspace) rdb.SelfTest {
	return rdb.SelfTest{
		Scripts: scripts, Steps: selfTestSteps, Key: keys.selfTest, Layout: rdb.Layout{Key: keys.layout(), Name: layoutName},
	}
}

// selfTestSteps runs every script, and every Redis command in them.
var selfTestSteps = []rdb.SelfTestStep{
	expect(scriptSetIfAbsent, "LINKED", "a", -1, 1, 2),
	expect(scriptTrySetLink, "REFUSED", "a", -1, 2, 2),
	expect(scriptGetPersist, "FOUND", "a"),
	expect(scriptSetLink, "LINKED", "a", 60, 2, 2),
	expect(scriptTrySetLink, "LINKED", "b", 60, 2, 2),
	expect(scriptGetLink, "FOUND", "a"),
	expect(scriptGetServices, "LINKS"),
	expect(scriptComputeLink, "EXISTING", "a", -1, 3, 2, 0),
	expect(scriptRemoveWithID, "ABSENT", "a", 0, 9),
	expect(scriptRemoveLink, "REMOVED", "a", 60),
	expect(scriptRemoveLink, "REMOVED", "a", 0),
	expect(scriptRemoveWithID, "REMOVED", "b", 0, 2),
	expect(scriptSetState, "STORED", 1, 0, 0, -1, 60, "a", 1, 0, 0, "-", "-", "self-test", "id", "", 4096, 1000),
	expect(scriptSetState, "LATE", 1, 0, 0, -1, 60, "a", 1, 0, 0, "-", "-", "self-test", "id", "", 1, 1000),
	expect(scriptSetState, "LIMITED", 2, 0, 0, -1, 60, "*", 0, 0, 0, "-", "-", "self-test", "id", "", 1, 1000),
	expect(scriptReservePod, "RESERVED", -1),
	expect(scriptReservePods, "CHOSEN", "", "-1", "1", "-1 0 0 1 ,2,"),
	expect(scriptReleasePod, "STALE", 1, 0, 2, 0),
	expect(scriptGetService, "PODS", 0, 512),
	expect(scriptCordonPod, "CORDONED", 1, 1, -1),
	expect(scriptGetServicePod, "FOUND", 1),
	expect(scriptRemoveState, "REMOVED", 1),
	expect(scriptSetWorkload, "STORED", "self-test"),
	expect(scriptRemoveWorkload, "REMOVED"),
	expect(scriptAppendFeed, "APPENDED", fieldGap, "self-test", 1000),
	expect(scriptAppendFeed, "APPENDED", fieldGap, "self-test", 1000),
	expect(scriptUpdateIndex, "UPDATED", opAdd, "a", 1, opAdd, "b", 1),
	expect(scriptUpdateIndex, "UPDATED", opRemove, "a", 1, opAdd, "b", 2),
	expect(scriptAddIndexed, "ADDED", 1),
	expect(scriptAddService, "ADDED", "a:b"),
	expect(scriptBeat, "BEATEN", "a"),
	expect(scriptLeave, "LEFT", "a", 1),
	expect(scriptAddGap, "ADDED"),
	expect(scriptCoverGaps, "COVERED", 1),
	expect(scriptTakeLease, "HELD", "a", 60000),
	expect(scriptReleaseLease, "RELEASED", "a"),
	expect(scriptCreateJob, "CREATED", "{}", "self-test"),
	expect(scriptTakeJob, "TAKEN", 1000),
	expect(scriptSaveJob, "LOST", 1, "running", "", 1000),
	expect(scriptCancelJob, "ASKED"),
	expect(scriptListJob, "LISTED", "a"),
	expect(scriptQueueJob, "QUEUED", "a:b", 1),
	expect(scriptUnqueueJob, "REMOVED", "a:b", 0),
}

func expect(script *rdb.Script, status string, args ...any) rdb.SelfTestStep {
	return rdb.SelfTestStep{Script: script, Args: args, Status: status}
}
