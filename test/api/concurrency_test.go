package api

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/types/known/durationpb"

	v1 "podlink/api/podlink/v1"
	"podlink/internal/conf"
	redistest "podlink/test/kit/redis"
)

// longTimeouts raises the timeouts of requests: these tests are not about time, and CI machines are slow.
func longTimeouts(c *conf.Bootstrap) {
	c.Server.Http.Timeout, c.Server.Grpc.Timeout = durationpb.New(10*time.Second), durationpb.New(10*time.Second)
	redis := c.Data.Redis
	redis.PoolTimeout, redis.DialTimeout = durationpb.New(9*time.Second), durationpb.New(9*time.Second)
	redis.ReadTimeout, redis.WriteTimeout = durationpb.New(9*time.Second), durationpb.New(9*time.Second)
}

// twins starts two podlinks on one Redis.
func twins(t *testing.T) [2]*testApp {
	redis := redistest.Start(t)
	return [2]*testApp{startApp(t, onRedis(redis), longTimeouts), startApp(t, onRedis(redis), longTimeouts)}
}

// together makes n concurrent calls, to both podlinks and over both transports, and returns their answers in order.
func together(t *testing.T, apps [2]*testApp, n int, name string, request func(i int) string) []answer {
	t.Helper()
	answers, errs := make([]answer, n), make([]error, n)
	start := make(chan struct{})
	var calls sync.WaitGroup
	for i := range n {
		calls.Go(func() {
			<-start
			answers[i], errs[i] = apps[i%2].call(t.Context(), transports[i/2%2], name, request(i))
		})
	}
	close(start)
	calls.Wait()
	for i, got := range answers {
		require.NoError(t, errs[i])
		require.True(t, got.ok(), "%s: %+v", request(i), got.problem)
	}
	return answers
}

// report sends a pod's report.
func report(t *testing.T, a *testApp, service string, pod int, more string) {
	t.Helper()
	request := fmt.Sprintf(`{"namespace":"ns","service":%q,"podId":%d,"state":"up"%s}`, service, pod, more)
	got := a.must(t, overHTTP, "SetServiceState", request)
	require.True(t, got.ok(), "%+v", got.problem)
}

// linkOf reads a link.
func linkOf(t *testing.T, a *testApp, uid, service string) *v1.Link {
	t.Helper()
	got := a.must(t, overGRPC, "GetLinkedPod", fmt.Sprintf(`{"namespace":"ns","uid":%q,"service":%q}`, uid, service))
	require.True(t, got.ok(), "%+v", got.problem)
	return got.into.(*v1.GetLinkedPodReply).GetLink()
}

// TestOneOwner: of 100 concurrent callers that link one uid, exactly one creates the link, and all get the same owner.
func TestOneOwner(t *testing.T) {
	const callers = 100
	apps := twins(t)
	for pod := range 3 {
		report(t, apps[0], "svc", pod, "")
	}
	for name, mine := range map[string]func(answer) bool{
		"ComputeLinkedPod": func(got answer) bool {
			reply := got.into.(*v1.ComputeLinkedPodReply)
			return reply.GetOutcome() == v1.ComputeLinkedPodReply_CREATED && reply.GetPreviousPodId() == -1
		},
		"TrySetLinkedPod": func(got answer) bool {
			reply := got.into.(*v1.TrySetLinkedPodReply)
			return reply.GetLinked() && reply.GetPreviousPodId() == -1
		},
		"SetLinkedPodIfAbsent": func(got answer) bool { return got.into.(*v1.SetLinkedPodIfAbsentReply).GetCreated() },
	} {
		t.Run(name, func(t *testing.T) {
			answers := together(t, apps, callers, name, func(i int) string {
				request := with(t, good[name], "uid", strconv.Quote(name))
				if name == "ComputeLinkedPod" {
					return request
				}
				return with(t, request, "podId", strconv.Itoa(i))
			})
			owner := linkOf(t, apps[1], name, "svc")
			require.True(t, owner.GetPersistent())
			created := 0
			for i, got := range answers {
				link := got.into.(interface{ GetLink() *v1.Link }).GetLink()
				require.Equal(t, owner.GetPodId(), link.GetPodId())
				require.Equal(t, owner.GetEpoch(), link.GetEpoch())
				if mine(got) {
					created++
					require.True(t, name == "ComputeLinkedPod" || int32(i) == link.GetPodId(), "the caller that created it is its owner")
				}
			}
			require.Equal(t, 1, created)
		})
	}
}

// TestSpread: concurrent new uids spread evenly over pods with the same load, even between reports and through two podlinks.
func TestSpread(t *testing.T) {
	const uids, pods = 90, 3
	apps := twins(t)
	for pod := range pods {
		report(t, apps[pod%2], "svc", pod, `,"load":7`)
	}
	answers := together(t, apps, uids, "ComputeLinkedPod", func(i int) string {
		return with(t, good["ComputeLinkedPod"], "uid", strconv.Quote(fmt.Sprint("new-", i)))
	})
	count := make(map[int32]int)
	for _, got := range answers {
		reply := got.into.(*v1.ComputeLinkedPodReply)
		require.Equal(t, v1.ComputeLinkedPodReply_CREATED, reply.GetOutcome())
		count[reply.GetLink().GetPodId()]++
	}
	require.Equal(t, map[int32]int{0: uids / pods, 1: uids / pods, 2: uids / pods}, count)

	// A uid counts once, even if many callers compute it at once: the next uids go to the two other pods.
	together(t, apps, 20, "ComputeLinkedPod", func(int) string { return good["ComputeLinkedPod"] })
	taken := map[int32]bool{linkOf(t, apps[0], "u1", "svc").GetPodId(): true}
	for i := range 2 {
		got := apps[i].must(t, overHTTP, "ComputeLinkedPod", with(t, good["ComputeLinkedPod"], "uid", strconv.Quote(fmt.Sprint("after-", i))))
		taken[got.into.(*v1.ComputeLinkedPodReply).GetLink().GetPodId()] = true
	}
	require.Len(t, taken, pods)
}

// TestUsable: Compute keeps or replaces a link depending on the state of its pod.
func TestUsable(t *testing.T) {
	for _, over := range transports {
		a := startApp(t, onRedis(redistest.Start(t)))
		bind := func(uid, service string, pod, seconds int) *v1.Link {
			request := fmt.Sprintf(`{"namespace":"ns","uid":%q,"service":%q,"podId":%d,"persistSeconds":%d}`, uid, service, pod, seconds)
			got := a.must(t, over, "SetLinkedPod", request)
			require.True(t, got.ok())
			return got.into.(*v1.SetLinkedPodReply).GetLink()
		}
		// In "mixed", pod 0 dies, 1 shuts down, 2 drains, and only 3 accepts new links. In "leaving", no pod does.
		report(t, a, "mixed", 0, `,"ttlSeconds":1`)
		report(t, a, "mixed", 1, `,"routing":"SHUTDOWN"`)
		report(t, a, "mixed", 2, `,"routing":"DENY_NEW"`)
		report(t, a, "mixed", 3, `,"load":1000`)
		report(t, a, "leaving", 0, `,"routing":"DENY_NEW","ttlSeconds":1`)
		report(t, a, "leaving", 1, `,"routing":"SHUTDOWN"`)
		report(t, a, "leaving", 2, `,"routing":"DENY_NEW"`)
		dead := func(service string) bool {
			got := a.must(t, over, "GetServicePod", fmt.Sprintf(`{"namespace":"ns","service":%q,"podId":0}`, service))
			pod := got.into.(*v1.GetServicePodReply).GetPod()
			return !pod.GetLive() && !pod.GetInDoubt()
		}
		for !dead("mixed") || !dead("leaving") { // It is so once others were heard for long enough.
			time.Sleep(100 * time.Millisecond)
			report(t, a, "mixed", 3, `,"load":1000`)
			report(t, a, "leaving", 2, `,"routing":"DENY_NEW"`)
		}

		for _, row := range []struct {
			uid, service string
			pod, seconds int
			outcome      v1.ComputeLinkedPodReply_Outcome // unspecified means NO_AVAILABLE_POD
		}{
			{"on a dead pod", "mixed", 0, -1, v1.ComputeLinkedPodReply_RELINKED},
			{"on a dead pod for a while", "mixed", 0, 600, v1.ComputeLinkedPodReply_RELINKED},
			{"on a pod that shuts down", "mixed", 1, -1, v1.ComputeLinkedPodReply_RELINKED},
			{"on a pod that never reported", "mixed", 77, -1, v1.ComputeLinkedPodReply_RELINKED},
			{"on a draining pod", "mixed", 2, -1, v1.ComputeLinkedPodReply_EXISTING},
			{"on a draining pod for a while", "mixed", 2, 600, v1.ComputeLinkedPodReply_EXISTING},
			{"on a ready pod", "mixed", 3, -1, v1.ComputeLinkedPodReply_EXISTING},
			{"on a pod of an unknown service", "unknown", 5, -1, v1.ComputeLinkedPodReply_EXISTING},
			{"on a pod of an unknown service for a while", "unknown", 0, 600, v1.ComputeLinkedPodReply_EXISTING},
			{"on a draining pod of several", "leaving", 2, -1, v1.ComputeLinkedPodReply_EXISTING},
			{"on a dead pod, with no other", "leaving", 0, -1, v1.ComputeLinkedPodReply_OUTCOME_UNSPECIFIED},
			{"on a pod that shuts down, with no other", "leaving", 1, 600, v1.ComputeLinkedPodReply_OUTCOME_UNSPECIFIED},
		} {
			before := bind(row.uid, row.service, row.pod, row.seconds)
			got := a.must(t, over, "ComputeLinkedPod", fmt.Sprintf(`{"namespace":"ns","uid":%q,"service":%q}`, row.uid, row.service))
			after := linkOf(t, a, row.uid, row.service)
			if row.outcome == v1.ComputeLinkedPodReply_OUTCOME_UNSPECIFIED {
				requireProblem(t, got, v1.ErrorReason_NO_AVAILABLE_POD, row.uid)
			} else {
				require.True(t, got.ok(), "%s: %+v", row.uid, got.problem)
				reply := got.into.(*v1.ComputeLinkedPodReply)
				require.Equal(t, row.outcome, reply.GetOutcome(), row.uid)
				require.EqualValues(t, row.pod, reply.GetPreviousPodId(), row.uid)
				require.Equal(t, after.GetPodId(), reply.GetLink().GetPodId(), row.uid)
				require.Equal(t, after.GetEpoch(), reply.GetLink().GetEpoch(), row.uid)
			}
			if row.outcome == v1.ComputeLinkedPodReply_RELINKED {
				require.EqualValues(t, 3, after.GetPodId(), row.uid)
				require.Greater(t, after.GetEpoch(), before.GetEpoch(), row.uid)
				require.True(t, after.GetPersistent(), row.uid)
				continue
			}
			require.Equal(t, before.GetPodId(), after.GetPodId(), row.uid)
			require.Equal(t, before.GetEpoch(), after.GetEpoch(), row.uid)
			require.Equal(t, before.GetPersistent(), after.GetPersistent(), row.uid)
			require.InDelta(t, before.GetTtlSeconds(), after.GetTtlSeconds(), 5, row.uid)
		}
		got := a.must(t, over, "ComputeLinkedPod", `{"namespace":"ns","uid":"new","service":"leaving"}`)
		requireProblem(t, got, v1.ErrorReason_NO_AVAILABLE_POD, "a new uid")
		require.EqualValues(t, -1, linkOf(t, a, "new", "leaving").GetPodId())
	}
}

// TestPausedRedis: while Redis hangs, every RPC is answered by its deadline. The first call after that succeeds.
func TestPausedRedis(t *testing.T) {
	const deadline = time.Second // server.http.timeout and server.grpc.timeout
	// The contract allows 100 ms; busy CI machines get 400 ms more.
	const most = deadline + 500*time.Millisecond
	redis := redistest.Start(t)
	a := startApp(t, onRedis(redis))
	report(t, a, "svc", 1, "")

	type result struct {
		name string
		over via
		got  answer
		err  error
	}
	for _, warm := range []bool{false, true} {
		if warm { // Open connections, so that mutations can be sent too.
			together(t, [2]*testApp{a, a}, 60, "SetLinkedPod", func(int) string { return good["SetLinkedPod"] })
		}
		redis.Pause()
		results := make(chan result, 2*len(rpcs))
		calls := 0
		for name := range rpcs {
			if streams(name) { // They have no timeout.
				continue
			}
			calls += len(transports)
			for _, over := range transports {
				go func() {
					got, err := a.call(context.WithoutCancel(t.Context()), over, name, good[name])
					results <- result{name, over, got, err}
				}()
			}
		}
		slowest := time.Duration(0)
		reasons := make(map[string]int)
		for range calls {
			r := <-results
			require.NoError(t, r.err)
			allowed := []v1.ErrorReason{v1.ErrorReason_DEADLINE_EXCEEDED, v1.ErrorReason_STORE_UNAVAILABLE}
			if slices.Contains(mutations, r.name) {
				allowed[0] = v1.ErrorReason_OUTCOME_UNKNOWN
			}
			reason := v1.ErrorReason(v1.ErrorReason_value[r.got.Reason])
			require.Contains(t, allowed, reason, "%s over %s: %+v", r.name, r.over, r.got)
			requireProblem(t, r.got, reason, r.name)
			require.Less(t, r.got.took, most, "%s over %s", r.name, r.over)
			slowest = max(slowest, r.got.took)
			reasons[r.got.Reason]++
		}
		redis.Resume()
		for _, over := range transports {
			got := a.must(t, over, "SetLinkedPod", good["SetLinkedPod"])
			require.True(t, got.ok(), "the first call afterwards: %+v", got.problem)
		}
		t.Logf("the slowest of %d calls took %s: %v", calls, slowest, reasons)
	}
}

// TestScriptFlush: callers don't notice that Redis has lost its scripts, as after a restart or a failover.
func TestScriptFlush(t *testing.T) {
	redis := redistest.Start(t)
	a := startApp(t, onRedis(redis))
	client := redis.Client(t)
	temporary := with(t, good["SetLinkedPod"], "persistSeconds", "60") // A batch reads temporary links by script.
	for name := range rpcs {
		for _, over := range transports {
			require.True(t, a.must(t, over, "SetServiceState", good["SetServiceState"]).ok())
			require.True(t, a.must(t, over, "SetLinkedPod", temporary).ok())
			require.True(t, a.must(t, over, "SetWorkloadState", good["SetWorkloadState"]).ok())
			require.NoError(t, client.ScriptFlush(t.Context()).Err())
			requireAnswered(t, a.must(t, over, name, good[name]), name, over)
		}
	}
}
