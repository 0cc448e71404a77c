package data

import (
	"context"
	"crypto/rand"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"podlink/internal/biz"
	"podlink/internal/rdb"
)

// lua is a run of a script. An argument may be an epoch or a heartbeat of an earlier reply.
type lua struct {
	script *rdb.Script
	args   []any
}

// fromReply is an argument: the last epoch or heartbeat of the n-th reply so far.
type fromReply int

// scriptRun is a run of a script, and its replies by the header: the first, and that of a repeated call. In replies, epochs
// and heartbeats are written as #1, #2 … in ascending order over the whole run, which shows whether they have changed.
type scriptRun struct {
	script *rdb.Script
	name   string
	before []lua
	args   []any

	reply, repeated string
	changes         [2]bool // whether the run, and its repetition, change the key
}

var (
	nothing = [2]bool{false, false}
	once    = [2]bool{true, false}
	twice   = [2]bool{true, true}
)

const (
	forever = -1
	most    = 3 // limits.max_services
)

// The steps before a run.
var (
	persistentTo2 = lua{scriptSetLink, []any{"a", forever, 2, most}}
	temporaryTo2  = lua{scriptSetLink, []any{"a", 600, 2, most}}
	claimedBy7    = lua{scriptSetLink, []any{"a", forever, 2, most, -1, 7}}
	temporaryBy7  = lua{scriptSetLink, []any{"a", 600, 2, most, -1, 7}}
	linkB         = lua{scriptSetLink, []any{"b", forever, 2, most}}
	linkC         = lua{scriptSetLink, []any{"c", 600, 2, most}}
	linkD         = lua{scriptSetLink, []any{"d", forever, 2, most}}
	pod2          = lua{scriptSetState, reportArgs(2, 5, 0, 30)}
	pod2Drains    = lua{scriptSetState, reportArgs(2, 5, 1, 30)}
	pod2Down      = lua{scriptSetState, reportArgs(2, 5, 2, 30)}
	pod2Removed   = lua{scriptRemoveState, []any{2}}
	pod2Instance  = lua{scriptSetState, instanceArgs("a", 1, 0, 0)}
	reservation   = lua{scriptReservePod, []any{forever}}
	workloadUp    = lua{scriptSetWorkload, []any{"up"}}
	entryInFeed   = lua{scriptAppendFeed, []any{fieldChanges, "a", 60000}}
	indexedUser   = lua{scriptUpdateIndex, []any{opAdd, "u", 20}}
	beatOfA       = lua{scriptBeat, []any{"a"}}
	leaseOfA      = lua{scriptTakeLease, []any{"a", 60000}}
	jobCreated    = lua{scriptCreateJob, []any{"{}", "me"}}
	jobTaken      = lua{scriptTakeJob, []any{5000}}
	jobCancelled  = lua{scriptCancelJob, nil}
	jobQueued     = lua{scriptQueueJob, []any{"ns:a", 2}}
	aSecondLater  = lua{} // Waits until links of one second have expired.
)

// reportArgs are the arguments of a report of a client that names no process.
func reportArgs(pod, load, routing, ttl int) []any {
	return []any{pod, load, routing, -1, ttl, "*", 0, 0, 0, "-", "-", "up", "id", "one", 4096, 1000}
}

// instanceArgs are the arguments of a report of a process of pod 2.
func instanceArgs(instance string, sequence, generation, supersedes any) []any {
	return []any{2, 5, 0, -1, 30, instance, sequence, generation, supersedes, "-", "-", "up", "id", "one", 4096, 1000}
}

// limited returns the arguments of a report with another limit of pods.
func limited(args []any, most int) []any {
	args[14] = most
	return args
}

// silentPods are more pods than one reservation moves out of the way.
func silentPods() []lua {
	var steps []lua
	for pod := range 70 {
		steps = append(steps, lua{scriptSetState, reportArgs(pod, 0, 0, 1)})
	}
	return append(steps, aSecondLater)
}

// The members of pod 2 in replies, without what was heard.
const (
	report2   = "2 5 0 0 0 -1 30 #1 H 0 0 * * 0 - - up"
	meta2     = "META #1 30000"
	reported2 = meta2 + " " + report2 + " 5"
)

// scriptRuns provokes every documented reply of every script.
var scriptRuns = []scriptRun{
	{scriptSetLink, "creates", nil, []any{"a", forever, 1, most},
		"LINKED -1 1 #1 -1", "KEPT 1 1 #1 -1", once},
	{scriptSetLink, "creates a temporary one", nil, []any{"a", 600, 1, most},
		"LINKED -1 1 #1 600", "LINKED 1 1 #1 600", twice},
	{scriptSetLink, "moves", []lua{persistentTo2}, []any{"a", forever, 1, most},
		"LINKED 2 1 #2 -1", "KEPT 1 1 #2 -1", once},
	{scriptSetLink, "makes it temporary", []lua{persistentTo2}, []any{"a", 600, 2, most},
		"LINKED 2 2 #1 600", "LINKED 2 2 #1 600", twice},
	{scriptSetLink, "makes it persistent", []lua{temporaryTo2}, []any{"a", forever, 2, most},
		"LINKED 2 2 #1 -1", "KEPT 2 2 #1 -1", once},
	{scriptSetLink, "moves the expected one", []lua{persistentTo2}, []any{"a", forever, 1, most, fromReply(0)},
		"LINKED 2 1 #2 -1", "EPOCH_MISMATCH 1 1 #2 -1", once},
	{scriptSetLink, "creates where none is expected", nil, []any{"a", forever, 1, most, 0},
		"LINKED -1 1 #1 -1", "EPOCH_MISMATCH 1 1 #1 -1", once},
	{scriptSetLink, "finds another than expected", []lua{persistentTo2}, []any{"a", forever, 1, most, 0},
		"EPOCH_MISMATCH 2 2 #1 -1", "EPOCH_MISMATCH 2 2 #1 -1", nothing},
	{scriptSetLink, "finds none but expects one", nil, []any{"a", forever, 1, most, 7},
		"EPOCH_MISMATCH -1 -1 0 -2", "EPOCH_MISMATCH -1 -1 0 -2", nothing},

	{scriptSetLink, "sets it again", []lua{persistentTo2}, []any{"a", forever, 2, most},
		"KEPT 2 2 #1 -1", "KEPT 2 2 #1 -1", nothing},
	{scriptSetLink, "claims a new one", nil, []any{"a", forever, 1, most, 0, 7},
		"LINKED -1 1 #1 -1 7", "KEPT 1 1 #1 -1 7", once},
	{scriptSetLink, "claims an unclaimed one", []lua{persistentTo2}, []any{"a", 600, 2, most, -1, 7},
		"LINKED 2 2 #2 600 7", "LINKED 2 2 #2 600 7", twice},
	{scriptSetLink, "claims one of an earlier process", []lua{claimedBy7}, []any{"a", forever, 2, most, fromReply(0), 10},
		"LINKED 2 2 #2 -1 10", "KEPT 2 2 #2 -1 10", once},
	{scriptSetLink, "claims another than expected", []lua{claimedBy7}, []any{"a", forever, 2, most, 0, 10},
		"EPOCH_MISMATCH 2 2 #1 -1 7", "EPOCH_MISMATCH 2 2 #1 -1 7", nothing},
	{scriptSetLink, "claims one of a later process", []lua{temporaryBy7}, []any{"a", forever, 2, most, 0, 6},
		"SUPERSEDED 2 2 #1 600 7", "SUPERSEDED 2 2 #1 600 7", nothing},
	{scriptSetLink, "moves a claimed one", []lua{claimedBy7}, []any{"a", forever, 1, most},
		"LINKED 2 1 #2 -1", "KEPT 1 1 #2 -1", once},
	{scriptSetLink, "sets a claimed one again", []lua{claimedBy7}, []any{"a", 600, 2, most},
		"LINKED 2 2 #1 600 7", "LINKED 2 2 #1 600 7", twice},
	{scriptSetLink, "claims again, above its epoch", []lua{claimedBy7}, []any{"a", forever, 2, most, -1, 7, fromReply(0)},
		"LINKED 2 2 #2 -1 7", "KEPT 2 2 #2 -1 7", once},
	{scriptSetLink, "must exceed too great an epoch", []lua{claimedBy7}, []any{"a", forever, 2, most, -1, 7, "9007199254740990"},
		"TOO_FAR_AHEAD 2 2 #1 -1 7", "TOO_FAR_AHEAD 2 2 #1 -1 7", nothing},
	{scriptSetLink, "sets its own", []lua{persistentTo2}, []any{"a", 600, 2, most, fromReply(0), 0, 0, 2},
		"LINKED 2 2 #1 600", "LINKED 2 2 #1 600", twice},
	{scriptSetLink, "claims its own", []lua{claimedBy7}, []any{"a", forever, 2, most, fromReply(0), 10, fromReply(0), 2},
		"LINKED 2 2 #2 -1 10", "KEPT 2 2 #2 -1 10", once},
	{scriptSetLink, "sets another pod's as its own", []lua{claimedBy7}, []any{"a", forever, 1, most, fromReply(0), 10, 0, 1},
		"EPOCH_MISMATCH 2 2 #1 -1 7", "EPOCH_MISMATCH 2 2 #1 -1 7", nothing},
	{scriptSetLink, "sets none as its own", nil, []any{"a", forever, 1, most, 0, 7, 0, 1},
		"EPOCH_MISMATCH -1 -1 0 -2", "EPOCH_MISMATCH -1 -1 0 -2", nothing},
	{scriptSetLink, "would be one too many", []lua{linkB, linkC, linkD}, []any{"a", forever, 2, most},
		"LIMIT_EXCEEDED -1 -1 0 -2", "LIMIT_EXCEEDED -1 -1 0 -2", nothing},

	{scriptTrySetLink, "creates", nil, []any{"a", forever, 1, most},
		"LINKED -1 1 #1 -1", "KEPT 1 1 #1 -1", once},
	{scriptTrySetLink, "moves a temporary one", []lua{temporaryTo2}, []any{"a", 600, 1, most},
		"LINKED 2 1 #2 600", "LINKED 1 1 #2 600", twice},
	{scriptTrySetLink, "finds a persistent one", []lua{persistentTo2}, []any{"a", 600, 1, most},
		"REFUSED 2 2 #1 -1", "REFUSED 2 2 #1 -1", nothing},

	{scriptTrySetLink, "moves a claimed one", []lua{temporaryBy7}, []any{"a", forever, 1, most},
		"LINKED 2 1 #2 -1", "KEPT 1 1 #2 -1", once},
	{scriptTrySetLink, "sets its own", []lua{temporaryTo2}, []any{"a", forever, 2, most, 2},
		"LINKED 2 2 #1 -1", "KEPT 2 2 #1 -1", once},
	{scriptTrySetLink, "sets another pod's as its own", []lua{temporaryTo2}, []any{"a", forever, 1, most, 1},
		"REFUSED 2 2 #1 600", "REFUSED 2 2 #1 600", nothing},
	{scriptTrySetLink, "sets none as its own", nil, []any{"a", forever, 1, most, 1},
		"REFUSED -1 -1 0 -2", "REFUSED -1 -1 0 -2", nothing},
	{scriptTrySetLink, "would be one too many", []lua{linkB, linkC, linkD}, []any{"a", 600, 2, most},
		"LIMIT_EXCEEDED -1 -1 0 -2", "LIMIT_EXCEEDED -1 -1 0 -2", nothing},

	{scriptSetIfAbsent, "creates", nil, []any{"a", 600, 1, most},
		"LINKED -1 1 #1 600", "EXISTING 1 1 #1 600", once},
	{scriptSetIfAbsent, "finds a temporary one", []lua{temporaryTo2}, []any{"a", forever, 1, most},
		"EXISTING 2 2 #1 600", "EXISTING 2 2 #1 600", nothing},

	{scriptSetIfAbsent, "claims a new one", nil, []any{"a", forever, 1, most, 7},
		"LINKED -1 1 #1 -1 7", "EXISTING 1 1 #1 -1 7", once},
	{scriptSetIfAbsent, "claims none that exists", []lua{temporaryBy7}, []any{"a", forever, 2, most, 8},
		"EXISTING 2 2 #1 600 7", "EXISTING 2 2 #1 600 7", nothing},
	{scriptSetIfAbsent, "must exceed too great an epoch", nil, []any{"a", forever, 2, most, 0, "9007199254740990"},
		"TOO_FAR_AHEAD -1 -1 0 -2", "TOO_FAR_AHEAD -1 -1 0 -2", nothing},
	{scriptSetIfAbsent, "would be one too many", []lua{linkB, linkC, linkD}, []any{"a", forever, 2, most},
		"LIMIT_EXCEEDED -1 -1 0 -2", "LIMIT_EXCEEDED -1 -1 0 -2", nothing},

	{scriptComputeLink, "creates", nil, []any{"a", forever, 1, most, 0},
		"LINKED -1 1 #1 -1", "EXISTING 1 1 #1 -1", once},
	{scriptComputeLink, "moves the expected one", []lua{persistentTo2}, []any{"a", 600, 1, most, fromReply(0)},
		"LINKED 2 1 #2 600", "EXISTING 1 1 #2 600", once},
	{scriptComputeLink, "finds another than expected", []lua{persistentTo2}, []any{"a", 600, 1, most, 0},
		"EXISTING 2 2 #1 -1", "EXISTING 2 2 #1 -1", nothing},

	{scriptComputeLink, "moves a claimed one", []lua{claimedBy7}, []any{"a", forever, 1, most, fromReply(0)},
		"LINKED 2 1 #2 -1", "EXISTING 1 1 #2 -1", once},
	{scriptComputeLink, "moves the temporary one", []lua{temporaryTo2}, []any{"a", 600, 1, most, fromReply(0), 1},
		"LINKED 2 1 #2 600", "EXISTING 1 1 #2 600", once},
	{scriptComputeLink, "leaves the persistent one", []lua{claimedBy7}, []any{"a", 600, 1, most, fromReply(0), 1},
		"EXISTING 2 2 #1 -1 7", "EXISTING 2 2 #1 -1 7", nothing},
	{scriptComputeLink, "must exceed too great an epoch", nil, []any{"a", forever, 2, most, 0, 0, "9007199254740990"},
		"TOO_FAR_AHEAD -1 -1 0 -2", "TOO_FAR_AHEAD -1 -1 0 -2", nothing},
	{scriptComputeLink, "is already as asked", []lua{claimedBy7}, []any{"a", forever, 2, most, fromReply(0)},
		"KEPT 2 2 #1 -1 7", "KEPT 2 2 #1 -1 7", nothing},
	{scriptComputeLink, "would be one too many", []lua{linkB, linkC, linkD}, []any{"a", forever, 2, most, 0},
		"LIMIT_EXCEEDED -1 -1 0 -2", "LIMIT_EXCEEDED -1 -1 0 -2", nothing},

	{scriptGetLink, "finds a persistent one", []lua{persistentTo2}, []any{"a"},
		"FOUND 2 2 #1 -1", "FOUND 2 2 #1 -1", nothing},
	{scriptGetLink, "finds a temporary one", []lua{temporaryTo2}, []any{"a"},
		"FOUND 2 2 #1 600", "FOUND 2 2 #1 600", nothing},
	{scriptGetLink, "finds none", []lua{persistentTo2}, []any{"b"},
		"ABSENT -1 -1 0 -2", "ABSENT -1 -1 0 -2", nothing},
	{scriptGetLink, "finds an expired one", []lua{linkB, {scriptSetLink, []any{"a", 1, 2, most}}, aSecondLater},
		[]any{"a"}, "EXPIRED -1 -1 0 -2", "EXPIRED -1 -1 0 -2", nothing},

	{scriptGetLink, "finds a claimed one", []lua{temporaryBy7}, []any{"a"},
		"FOUND 2 2 #1 600 7", "FOUND 2 2 #1 600 7", nothing},

	{scriptGetPersist, "finds a claimed one", []lua{claimedBy7}, []any{"a"},
		"FOUND 2 2 #1 -1 7", "FOUND 2 2 #1 -1 7", nothing},
	{scriptGetPersist, "finds a persistent one", []lua{persistentTo2}, []any{"a"},
		"FOUND 2 2 #1 -1", "FOUND 2 2 #1 -1", nothing},
	{scriptGetPersist, "finds a temporary one", []lua{temporaryTo2}, []any{"a"},
		"ABSENT 2 -1 0 -2", "ABSENT 2 -1 0 -2", nothing},
	{scriptGetPersist, "finds none", nil, []any{"a"},
		"ABSENT -1 -1 0 -2", "ABSENT -1 -1 0 -2", nothing},

	{scriptRemoveLink, "removes", []lua{persistentTo2}, []any{"a", 0},
		"REMOVED 2 -1 0 -2 #1", "ABSENT -1 -1 0 -2", once},
	{scriptRemoveLink, "keeps", []lua{persistentTo2}, []any{"a", 60},
		"REMOVED 2 2 #1 60", "REMOVED 2 2 #1 60", twice},
	{scriptRemoveLink, "removes the expected one", []lua{persistentTo2}, []any{"a", 0, fromReply(0)},
		"REMOVED 2 -1 0 -2 #1", "EPOCH_MISMATCH -1 -1 0 -2", once},
	{scriptRemoveLink, "keeps the expected one", []lua{temporaryTo2}, []any{"a", 60, fromReply(0)},
		"REMOVED 2 2 #1 60", "REMOVED 2 2 #1 60", twice},
	{scriptRemoveLink, "finds none", nil, []any{"a", 0},
		"ABSENT -1 -1 0 -2", "ABSENT -1 -1 0 -2", nothing},
	{scriptRemoveLink, "finds none and expects none", nil, []any{"a", 60, 0},
		"ABSENT -1 -1 0 -2", "ABSENT -1 -1 0 -2", nothing},
	{scriptRemoveLink, "finds another than expected", []lua{temporaryTo2}, []any{"a", 0, 7},
		"EPOCH_MISMATCH 2 2 #1 600", "EPOCH_MISMATCH 2 2 #1 600", nothing},

	{scriptRemoveLink, "keeps a claimed one", []lua{claimedBy7}, []any{"a", 60},
		"REMOVED 2 2 #1 60", "REMOVED 2 2 #1 60", twice},

	{scriptRemoveLink, "removes its own", []lua{claimedBy7}, []any{"a", 0, fromReply(0), 2},
		"REMOVED 2 -1 0 -2 #1", "EPOCH_MISMATCH -1 -1 0 -2", once},
	{scriptRemoveLink, "keeps its own, whatever its epoch", []lua{persistentTo2}, []any{"a", 60, -1, 2},
		"REMOVED 2 2 #1 60", "REMOVED 2 2 #1 60", twice},
	{scriptRemoveLink, "finds another pod's", []lua{persistentTo2}, []any{"a", 0, fromReply(0), 1},
		"EPOCH_MISMATCH 2 2 #1 -1", "EPOCH_MISMATCH 2 2 #1 -1", nothing},
	{scriptRemoveLink, "finds none of its own", nil, []any{"a", 0, 0, 1},
		"ABSENT -1 -1 0 -2", "ABSENT -1 -1 0 -2", nothing},

	{scriptRemoveWithID, "keeps a claimed one", []lua{temporaryBy7}, []any{"a", 60, 2},
		"REMOVED 2 2 #1 60", "REMOVED 2 2 #1 60", twice},
	{scriptRemoveWithID, "removes", []lua{temporaryTo2}, []any{"a", 0, 2},
		"REMOVED 2 -1 0 -2 #1", "ABSENT -1 -1 0 -2", once},
	{scriptRemoveWithID, "keeps", []lua{persistentTo2}, []any{"a", 60, 2},
		"REMOVED 2 2 #1 60", "REMOVED 2 2 #1 60", twice},
	{scriptRemoveWithID, "finds another pod", []lua{persistentTo2}, []any{"a", 60, 1},
		"ABSENT 2 2 #1 -1", "ABSENT 2 2 #1 -1", nothing},
	{scriptRemoveWithID, "finds none", nil, []any{"a", 60, 1},
		"ABSENT -1 -1 0 -2", "ABSENT -1 -1 0 -2", nothing},

	{scriptGetServices, "finds one", []lua{persistentTo2}, nil,
		"LINKS a 2 #1 -1", "LINKS a 2 #1 -1", nothing},
	{scriptGetServices, "finds a claimed one", []lua{temporaryBy7}, nil,
		"LINKS a 2 #1 600 7", "LINKS a 2 #1 600 7", nothing},
	{scriptGetServices, "finds none", nil, nil,
		"LINKS", "LINKS", nothing},

	{scriptSetState, "first report", nil, reportArgs(2, 5, 0, 30),
		"STORED NOW " + reported2 + " id   ",
		"STORED NOW META #2 30000 2 5 0 0 0 -1 30 #2 H 0 0 * * 0 - - up 5 id " + reported2, twice},
	{scriptSetState, "next report", []lua{pod2}, reportArgs(2, 0, 2, forever),
		"STORED NOW META #2 30000 2 0 2 0 0 -1 -1 #2 H 0 0 * * 0 - - up 0 id " + reported2,
		"STORED NOW META #3 30000 2 0 2 0 0 -1 -1 #3 H 0 0 * * 0 - - up 0 id META #2 30000 2 0 2 0 0 -1 -1 #2 H 0 0 * * 0 - - up 0", twice},
	{scriptSetState, "first report of a process", []lua{pod2}, instanceArgs("b", 1, 0, 0),
		"STORED NOW META #2 30000 2 5 0 0 0 -1 30 #2 H #3 1 b * 0 - - up 5 id " + reported2,
		"LATE NOW META #2 30000 2 5 0 0 0 -1 30 #2 H #3 1 b * 0 - - up 5 id #3", once},
	{scriptSetState, "next report of a process", []lua{pod2Instance}, instanceArgs("a", 2, fromReply(0), 0),
		"STORED NOW META #2 30000 2 5 0 0 0 -1 30 #2 H #3 2 a * 0 - - up 5 id META #1 30000 2 5 0 0 0 -1 30 #1 H #3 1 a * 0 - - up 5",
		"LATE NOW META #2 30000 2 5 0 0 0 -1 30 #2 H #3 2 a * 0 - - up 5 id #3", once},
	{scriptSetState, "a process that was replaced", []lua{pod2Instance}, instanceArgs("b", 1, 7, 0),
		"SUPERSEDED #2 0", "SUPERSEDED #2 0", nothing},
	{scriptSetState, "a pod too many", []lua{pod2}, limited(reportArgs(1, 0, 0, 30), 1),
		"LIMITED limits.max_pods", "LIMITED limits.max_pods", once},

	{scriptGetService, "finds one", []lua{pod2}, []any{0, 512},
		"PODS NOW META #1 30000 -1 2 5 0 0 0 -1 30 #1 H 0 0 * * 0 - - up 5",
		"PODS NOW META #1 30000 -1 2 5 0 0 0 -1 30 #1 H 0 0 * * 0 - - up 5", nothing},
	{scriptGetService, "finds more", []lua{pod2}, []any{0, 1},
		"PODS NOW META #1 30000 3 2 5 0 0 0 -1 30 #1 H 0 0 * * 0 - - up 5",
		"PODS NOW META #1 30000 3 2 5 0 0 0 -1 30 #1 H 0 0 * * 0 - - up 5", nothing},
	{scriptGetService, "finds none", nil, []any{0, 512},
		"PODS NOW  -1", "PODS NOW  -1", nothing},
	{scriptGetService, "finds none after a removal", []lua{pod2, pod2Removed}, []any{0, 512},
		"PODS NOW META #1 30000 -1", "PODS NOW META #1 30000 -1", nothing},

	{scriptGetServicePod, "finds it", []lua{pod2}, []any{2},
		"FOUND NOW " + reported2, "FOUND NOW " + reported2, nothing},
	{scriptGetServicePod, "does not find it", []lua{pod2}, []any{1},
		"ABSENT", "ABSENT", nothing},

	{scriptCordonPod, "cordons", []lua{pod2}, []any{2, 1, forever},
		"CORDONED NOW " + meta2 + " 2 5 0 1 0 -1 30 #1 H 0 0 * * 0 - - up 5",
		"CORDONED NOW " + meta2 + " 2 5 0 1 0 -1 30 #1 H 0 0 * * 0 - - up 5", once},
	{scriptCordonPod, "cordons for a while", []lua{pod2}, []any{2, 1, 60},
		"CORDONED NOW " + meta2 + " 2 5 0 1 #2 -1 30 #1 H 0 0 * * 0 - - up 5",
		"CORDONED NOW " + meta2 + " 2 5 0 1 #3 -1 30 #1 H 0 0 * * 0 - - up 5", twice},
	{scriptCordonPod, "does not find it", []lua{pod2}, []any{1, 1, forever},
		"ABSENT", "ABSENT", nothing},

	{scriptRemoveState, "removes", []lua{pod2}, []any{2},
		"REMOVED NOW " + reported2, "ABSENT", once},
	{scriptRemoveState, "finds none", nil, []any{2},
		"ABSENT", "ABSENT", nothing},

	{scriptReservePod, "a READY pod of a link", []lua{pod2}, []any{2},
		"USABLE", "USABLE", nothing},
	{scriptReservePod, "a DENY_NEW pod of a link", []lua{pod2Drains}, []any{2},
		"USABLE", "USABLE", nothing},
	{scriptReservePod, "nothing reported", nil, []any{forever},
		"UNKNOWN", "UNKNOWN", nothing},
	{scriptReservePod, "none accepts new links", []lua{pod2Down}, []any{2},
		"NONE", "NONE", nothing},
	{scriptReservePod, "none after a removal", []lua{pod2, pod2Removed}, []any{forever},
		"NONE", "NONE", nothing},
	{scriptReservePod, "reserves", []lua{pod2}, []any{forever},
		"RESERVED 2 #1", "RESERVED 2 #1", twice},
	{scriptReservePod, "avoids a pod", []lua{pod2, {scriptSetState, reportArgs(1, 0, 0, 30)}}, []any{forever, 0, 0, -1, ",1,", ""},
		"RESERVED 2 #1", "RESERVED 2 #1", twice},
	{scriptReservePod, "restores", []lua{pod2}, []any{forever, 0, 0, 2, "", ""},
		"RESTORED 2 #1", "RESTORED 2 #1", twice},
	{scriptReservePod, "many silent pods", silentPods(), []any{forever},
		"AGAIN", "NONE", twice},

	{scriptReservePods, "nothing reported", nil, []any{"", "-1"},
		"UNKNOWN", "UNKNOWN", nothing},
	{scriptReservePods, "reserves", []lua{pod2, {scriptSetState, reportArgs(1, 6, 0, 30)}}, []any{"", "-1", "2", "-1", "-1 0 0 -1 ,1,"},
		"CHOSEN RESERVED 2 #1 USABLE -1 0 RESERVED 1 #2 RESERVED 2 #1",
		"CHOSEN RESERVED 1 #2 USABLE -1 0 RESERVED 2 #1 RESERVED 2 #1", twice},
	{scriptReservePods, "none accepts new links", []lua{pod2Drains}, []any{"", "-1", "2"},
		"CHOSEN NONE -1 0 USABLE -1 0", "CHOSEN NONE -1 0 USABLE -1 0", nothing},
	{scriptReservePods, "restores", []lua{pod2}, []any{"", "-1 0 0 2", "-1 0 0 3"},
		"CHOSEN RESTORED 2 #1 RESTORED 3 0", "CHOSEN RESTORED 2 #1 RESTORED 3 0", twice},

	{scriptReleasePod, "releases two", []lua{pod2, reservation, reservation}, []any{2, fromReply(1), 2, fromReply(1), 3, 0},
		"RELEASED", "STALE", once},
	{scriptReleasePod, "releases", []lua{pod2, reservation, reservation}, []any{2, fromReply(1)},
		"RELEASED", "RELEASED", twice},
	{scriptReleasePod, "releases the only one", []lua{pod2, reservation}, []any{2, fromReply(1)},
		"RELEASED", "STALE", once},
	{scriptReleasePod, "has reported since", []lua{pod2, reservation, pod2, reservation}, []any{2, fromReply(1)},
		"STALE", "STALE", nothing},
	{scriptReleasePod, "was removed", []lua{pod2, reservation, pod2Removed}, []any{2, fromReply(1)},
		"STALE", "STALE", nothing},

	{scriptSetWorkload, "stores", nil, []any{"up"},
		"STORED #1", "STORED #2", twice},

	{scriptRemoveWorkload, "removes", []lua{workloadUp}, nil,
		"REMOVED NOW up", "ABSENT", once},
	{scriptRemoveWorkload, "finds none", nil, nil,
		"ABSENT", "ABSENT", nothing},

	{scriptAppendFeed, "appends the first", nil, []any{fieldGap, "STORE", 60000},
		"APPENDED #1-1", "APPENDED #2-2", twice},
	{scriptAppendFeed, "appends another", []lua{entryInFeed, entryInFeed}, []any{fieldChanges, "a", 60000},
		"APPENDED #3-3", "APPENDED #4-4", twice},

	{scriptUpdateIndex, "adds", nil, []any{opAdd, "u", 20},
		"UPDATED", "UPDATED", once},
	{scriptUpdateIndex, "adds with a greater epoch", []lua{indexedUser}, []any{opAdd, "u", "21 1700000000"},
		"UPDATED", "UPDATED", once},
	{scriptUpdateIndex, "adds with the same epoch", []lua{indexedUser}, []any{opAdd, "u", "20 1700000000"},
		"UPDATED", "UPDATED", once},
	{scriptUpdateIndex, "adds with a smaller epoch", []lua{indexedUser}, []any{opAdd, "u", 9},
		"UPDATED", "UPDATED", nothing},
	{scriptUpdateIndex, "removes", []lua{indexedUser}, []any{opRemove, "u", 20},
		"UPDATED", "UPDATED", once},
	{scriptUpdateIndex, "removes a smaller epoch", []lua{indexedUser}, []any{opRemove, "u", 19},
		"UPDATED", "UPDATED", nothing},
	{scriptUpdateIndex, "removes none", nil, []any{opRemove, "u", 20},
		"UPDATED", "UPDATED", nothing},
	{scriptUpdateIndex, "deletes", []lua{indexedUser}, []any{opAdd, "v", 5, opDelete, "u", 0, opAdd, "w", 5, opDelete, "w", 0},
		"UPDATED", "UPDATED", once},

	{scriptAddIndexed, "adds", nil, []any{2},
		"ADDED", "KNOWN", once},
	{scriptAddIndexed, "knows it", []lua{{scriptAddIndexed, []any{2}}}, []any{2},
		"KNOWN", "KNOWN", nothing},
	{scriptAddService, "adds", nil, []any{"ns:game"},
		"ADDED", "KNOWN", once},
	{scriptAddService, "knows it", []lua{{scriptAddService, []any{"ns:game"}}}, []any{"ns:game"},
		"KNOWN", "KNOWN", nothing},

	{scriptBeat, "the first", nil, []any{"b"},
		"BEATEN b 1", "BEATEN b 2", twice},
	{scriptBeat, "with others", []lua{beatOfA, beatOfA}, []any{"b"},
		"BEATEN a 2 b 1", "BEATEN a 2 b 2", twice},
	{scriptLeave, "leaves", []lua{beatOfA}, []any{"a", 1},
		"LEFT", "ABSENT", once},
	{scriptLeave, "leaves anyway", []lua{beatOfA, beatOfA}, []any{"a", 0},
		"LEFT", "ABSENT", once},
	{scriptLeave, "is alive", []lua{beatOfA, beatOfA}, []any{"a", 1},
		"ALIVE", "ALIVE", nothing},
	{scriptLeave, "finds none", []lua{beatOfA}, []any{"b", 1},
		"ABSENT", "ABSENT", nothing},

	{scriptAddGap, "adds", nil, nil,
		"ADDED", "ADDED", twice},
	{scriptCoverGaps, "covers", nil, []any{1},
		"COVERED", "KNOWN", once},
	{scriptCoverGaps, "covers those that there are", []lua{{scriptCoverGaps, []any{1}}, {scriptAddGap, nil}}, []any{9},
		"COVERED", "KNOWN", once},
	{scriptCoverGaps, "covers more than there are", []lua{{scriptCoverGaps, []any{1}}}, []any{2},
		"KNOWN", "KNOWN", nothing},

	{scriptTakeLease, "takes", nil, []any{"a", 60000},
		"HELD", "HELD", once},
	{scriptTakeLease, "another has it", []lua{leaseOfA}, []any{"b", 60000},
		"BUSY", "BUSY", nothing},
	{scriptReleaseLease, "releases", []lua{leaseOfA}, []any{"a"},
		"RELEASED", "ABSENT", once},
	{scriptReleaseLease, "another has it", []lua{leaseOfA}, []any{"b"},
		"ABSENT", "ABSENT", nothing},

	{scriptCreateJob, "creates", nil, []any{"{}", "me"},
		"CREATED NOW #1 0 0 0 pending {} me ", "EXISTS NOW #1 0 0 0 pending {} me ", once},
	{scriptTakeJob, "takes", []lua{jobCreated}, []any{5000},
		"TAKEN NOW #1 #2 0 #3 running {} me ", "BUSY", once},
	{scriptTakeJob, "after the lease has ended", []lua{jobCreated, {scriptTakeJob, []any{1}}}, []any{5000},
		"TAKEN NOW #1 #2 0 #4 running {} me ", "BUSY", once},
	{scriptTakeJob, "another has it", []lua{jobCreated, jobTaken}, []any{5000},
		"BUSY", "BUSY", nothing},
	{scriptTakeJob, "has ended", []lua{jobCreated, jobCancelled}, []any{5000},
		"ENDED", "ENDED", nothing},
	{scriptTakeJob, "finds none", nil, []any{5000},
		"ABSENT", "ABSENT", nothing},
	{scriptSaveJob, "saves", []lua{jobCreated, jobTaken}, []any{fromReply(1), "running", "{}", 5000},
		"SAVED 0", "SAVED 0", twice},
	{scriptSaveJob, "is to be cancelled", []lua{jobCreated, jobTaken, jobCancelled}, []any{fromReply(1), "running", "{}", 5000},
		"SAVED 1", "SAVED 1", twice},
	{scriptSaveJob, "ends", []lua{jobCreated, jobTaken}, []any{fromReply(1), "done", "{}", 5000},
		"SAVED 0", "LOST", once},
	{scriptSaveJob, "another lease", []lua{jobCreated, jobTaken}, []any{1, "running", "{}", 5000},
		"LOST", "LOST", nothing},
	{scriptCancelJob, "nobody runs it", []lua{jobCreated}, nil,
		"CANCELLED NOW #1 0 #2 0 cancelled {} me ", "ENDED NOW #1 0 #2 0 cancelled {} me ", once},
	{scriptCancelJob, "runs", []lua{jobCreated, jobTaken}, nil,
		"ASKED NOW #1 #2 0 #3 running {} me ", "ASKED NOW #1 #2 0 #3 running {} me ", once},
	{scriptCancelJob, "finds none", nil, nil,
		"ABSENT", "ABSENT", nothing},
	{scriptListJob, "lists", nil, []any{"9999999999999-a"},
		"LISTED", "LISTED", once},
	{scriptQueueJob, "queues", nil, []any{"ns:a", 2},
		"QUEUED", "KNOWN", once},
	{scriptQueueJob, "too many", []lua{jobQueued, {scriptQueueJob, []any{"ns:b", 2}}}, []any{"ns:c", 2},
		"LIMITED", "LIMITED", nothing},
	{scriptUnqueueJob, "removes", []lua{jobQueued}, []any{"ns:a", 0},
		"REMOVED", "KEPT", once},
	{scriptUnqueueJob, "was added a moment ago", []lua{jobQueued}, []any{"ns:a", 60000},
		"KEPT", "KEPT", nothing},
}

func TestScriptRepliesAreDocumented(t *testing.T) {
	provoked := make(map[*rdb.Script]map[string]bool)
	changed := make(map[*rdb.Script]bool)
	for _, run := range scriptRuns {
		if provoked[run.script] == nil {
			provoked[run.script] = make(map[string]bool)
		}
		provoked[run.script][status(run.reply)] = true
		provoked[run.script][status(run.repeated)] = true
		changed[run.script] = changed[run.script] || run.changes != nothing
	}
	for _, sc := range scripts {
		header := parseHeader(headerText(sc))
		for _, documented := range documentedStatuses(header) {
			require.True(t, provoked[sc][documented], "%s: no run provokes %s", sc.Name, documented)
		}
		require.Len(t, provoked[sc], len(documentedStatuses(header)), "%s: more replies than documented", sc.Name)
		require.Equal(t, (sc.Access != rdb.Read), changed[sc], "%s: a script changes something if and only if it writes", sc.Name)
	}
	for _, run := range scriptRuns {
		repeat := parseHeader(headerText(run.script))["Repeat"][0]
		if run.changes[0] {
			require.Contains(t, repeat, status(run.repeated), "%s %s: Repeat", run.script.Name, run.name)
		} else {
			require.Equal(t, run.reply, run.repeated, "%s %s: without a change, a repeated call has the same reply", run.script.Name, run.name)
		}
	}
}

func TestScriptRuns(t *testing.T) {
	onEachStore(t, func(t *testing.T, store *testStore) {
		for _, run := range scriptRuns {
			t.Run(run.script.Name+"/"+run.name, func(t *testing.T) { run.test(t, store) })
		}
	})
}

func (run scriptRun) test(t *testing.T, store *testStore) {
	key := store.keyOf(t, run.script)
	replies := run.prepare(t, store, key)
	for i, want := range []string{run.reply, run.repeated} {
		before := dump(t, store)
		replies = lua{run.script, run.args}.execute(t, store, key, replies)
		got := normalizeClocks(replies)
		for i := range got {
			got[i] = withoutHeard(got[i])
		}
		require.Equal(t, want, got[len(got)-1], "run %d", i+1)
		if after := dump(t, store); run.changes[i] {
			require.NotEqual(t, before, after, "run %d", i+1)
		} else {
			require.Equal(t, before, after, "run %d", i+1)
		}
	}
	require.NoError(t, store.client.Del(context.Background(), key).Err())
}

// prepare executes the steps before the run, and returns their replies.
func (run scriptRun) prepare(t *testing.T, store *testStore, key string) (replies []string) {
	t.Helper()
	for _, step := range run.before {
		replies = step.execute(t, store, key, replies)
	}
	return replies
}

// execute executes the step, and returns the replies with its own.
func (step lua) execute(t *testing.T, store *testStore, key string, replies []string) []string {
	t.Helper()
	if step.script == nil {
		time.Sleep(1100 * time.Millisecond)
		return replies
	}
	time.Sleep(2 * time.Millisecond) // So that a clock in ms advances.
	reply, err := store.Runner.Run(t.Context(), step.script, key, resolve(step.args, replies)...)
	require.NoError(t, err)
	return append(replies, render(reply))
}

// resolve returns the arguments with each fromReply replaced by its value.
func resolve(args []any, replies []string) []any {
	args = slices.Clone(args)
	for i, arg := range args {
		if n, ok := arg.(fromReply); ok {
			numbers := clockPattern.FindAllString(replies[n], -1)
			args[i] = numbers[len(numbers)-1]
		}
	}
	return args
}

// keyOf returns a new key of the script's kind.
func (s *testStore) keyOf(t *testing.T, sc *rdb.Script) string {
	t.Helper()
	namespace := rand.Text()
	service := biz.ServiceKey{Namespace: namespace, Service: "game"}
	switch sc.KeyKind {
	case "link":
		return s.keys.links(namespace, "uid")
	case "service":
		return s.keys.service(service)
	case "feed":
		return s.keys.feed(service)
	case "index":
		return s.keys.index(service, 2)
	case "indexed":
		return s.keys.indexed(service)
	case "services":
		return s.keys.services()
	case "writers":
		return s.keys.writers()
	case "fleet":
		return s.keys.fleet()
	case "lease":
		return s.keys.lease(namespace)
	case "job":
		return s.keys.job(biz.JobKey{Namespace: namespace, ID: "id"})
	case "jobs":
		return s.keys.jobs(namespace)
	case "jobqueue":
		return s.keys.jobQueue()
	default:
		require.Equal(t, "workload", sc.KeyKind)
		return s.keys.workload(namespace, "game")
	}
}

func status(reply string) string {
	word, _, _ := strings.Cut(reply, " ")
	return word
}

// render formats a reply like the header of its script.
func render(value any) string {
	if r, ok := value.(rdb.Reply); ok {
		if r.Text != "" {
			return r.Text
		}
		return render(r.Values)
	}
	values, isArray := value.([]any)
	if !isArray {
		return fmt.Sprint(value)
	}
	words := make([]string, len(values))
	for i, value := range values {
		if words[i] = render(value); isNested(value) {
			words[i] = "[" + words[i] + "]"
		}
	}
	return strings.Join(words, " ")
}

func isNested(value any) bool {
	_, nested := value.([]any)
	return nested
}

// clockPattern matches values of a clock: Unix time in ms or µs.
var clockPattern = regexp.MustCompile(`\b\d{13,16}\b`)

// nowPattern matches the time of the call in replies about pods.
var nowPattern = regexp.MustCompile(`^(STORED|LATE|FOUND|PODS|CORDONED|REMOVED|CREATED|EXISTS|TAKEN|CANCELLED|ASKED|ENDED) \d{13} `)

// normalizeClocks replaces values of a clock by #1, #2 … in ascending order.
func normalizeClocks(replies []string) []string {
	replies = slices.Clone(replies)
	for i := range replies {
		replies[i] = nowPattern.ReplaceAllString(replies[i], "$1 NOW ")
	}
	numbers := clockPattern.FindAllString(strings.Join(replies, " "), -1)
	slices.SortFunc(numbers, func(a, b string) int {
		if len(a) != len(b) {
			return len(a) - len(b)
		}
		return strings.Compare(a, b)
	})
	numbers = slices.Compact(numbers)
	out := make([]string, len(replies))
	for i, reply := range replies {
		out[i] = clockPattern.ReplaceAllStringFunc(reply, func(number string) string {
			return "#" + strconv.Itoa(slices.Index(numbers, number)+1)
		})
	}
	return out
}
