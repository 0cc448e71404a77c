package e2e

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	v1 "podlink/api/podlink/v1"
	podlinktest "podlink/test/kit/podlink"
	redistest "podlink/test/kit/redis"
)

// jobsOf calls a podlink about the jobs of a namespace: over HTTP as an operator does, and over gRPC what is beside.
type jobsOf struct {
	*testing.T
	namespace string
	base      string // of podlink's URLs
	client    *http.Client
	conn      *grpc.ClientConn
	redis     *redis.Client
}

// forever is the ttl_seconds and persist_seconds of what does not expire.
const forever = -1

// aboutJobs returns the jobs of a namespace of the test alone.
func aboutJobs(t *testing.T, p *podlinktest.Process, server *redistest.Server) *jobsOf {
	t.Helper()
	transport := new(http.Transport)
	t.Cleanup(transport.CloseIdleConnections)
	namespace := strings.ToLower(t.Name()[strings.LastIndex(t.Name(), "/")+1:])
	return &jobsOf{
		T: t, namespace: namespace, base: "http://" + p.HTTP + "/v1/namespaces/" + namespace + "/jobs",
		client: &http.Client{Transport: transport}, conn: p.Conn(t), redis: server.Client(t),
	}
}

// do sends a request about jobs, and returns the status and the body.
func (j *jobsOf) do(method, path, body string) (int, []byte) {
	j.Helper()
	request, err := http.NewRequestWithContext(j.Context(), method, j.base+path, bytes.NewBufferString(body))
	require.NoError(j, err)
	request.Header.Set("Content-Type", "application/json")
	reply, err := j.client.Do(request)
	require.NoError(j, err)
	defer reply.Body.Close()
	text, err := io.ReadAll(reply.Body)
	require.NoError(j, err)
	return reply.StatusCode, text
}

// create asks for a job.
func (j *jobsOf) create(body string) *v1.Job {
	j.Helper()
	code, text := j.do(http.MethodPost, "", body)
	require.Equal(j, http.StatusOK, code, "%s", text)
	reply := new(v1.CreateJobReply)
	require.NoError(j, protojson.Unmarshal(text, reply))
	return reply.GetJob()
}

// refused asks for a job, and returns the reason and the field of the refusal.
func (j *jobsOf) refused(body string) (reason, field string) {
	j.Helper()
	code, text := j.do(http.MethodPost, "", body)
	require.NotEqual(j, http.StatusOK, code)
	var problem struct {
		Reason   string
		Metadata map[string]string
	}
	require.NoError(j, json.Unmarshal(text, &problem))
	return problem.Reason, problem.Metadata["field"]
}

// events watches a job by server-sent events until the stream ends, and returns what came.
func (j *jobsOf) events(id string) (jobs []*v1.Job) {
	j.Helper()
	request, err := http.NewRequestWithContext(j.Context(), http.MethodGet, j.base+"/"+id+":watch", http.NoBody)
	require.NoError(j, err)
	reply, err := j.client.Do(request)
	require.NoError(j, err)
	defer reply.Body.Close()
	require.Equal(j, "text/event-stream", reply.Header.Get("Content-Type"))
	lines := bufio.NewScanner(reply.Body)
	for lines.Scan() {
		if data, ok := strings.CutPrefix(lines.Text(), "data:"); ok {
			message := new(v1.WatchJobReply)
			require.NoError(j, protojson.Unmarshal([]byte(data), message))
			jobs = append(jobs, message.GetJob())
		}
	}
	require.NoError(j, lines.Err())
	return jobs
}

// await watches a job over gRPC until it has ended, and returns it.
func (j *jobsOf) await(id string) (job *v1.Job) {
	j.Helper()
	stream, err := v1.NewFleetServiceClient(j.conn).WatchJob(j.Context(), &v1.WatchJobRequest{Namespace: j.namespace, Job: id})
	require.NoError(j, err)
	for {
		message, err := stream.Recv()
		if err != nil {
			require.ErrorIs(j, err, io.EOF)
			require.NotNil(j, job)
			return job
		}
		job = message.GetJob()
	}
}

// report reports pods 0 to n-1 of the service, for ever.
func (j *jobsOf) report(service string, n int32) {
	j.Helper()
	for pod := range n {
		_, err := v1.NewStateServiceClient(j.conn).SetServiceState(j.Context(), &v1.SetServiceStateRequest{
			Namespace: j.namespace, Service: service, PodId: &pod, State: "up", TtlSeconds: proto.Int32(forever),
		})
		require.NoError(j, err)
	}
}

// link links the items.
func (j *jobsOf) link(service string, items ...*v1.BatchSetLinkedPodRequest_Item) {
	j.Helper()
	reply, err := v1.NewLinkServiceClient(j.conn).BatchSetLinkedPod(j.Context(), &v1.BatchSetLinkedPodRequest{
		Namespace: j.namespace, Service: service, Items: items,
	})
	require.NoError(j, err)
	for _, result := range reply.GetResults() {
		require.True(j, result.GetLinked(), "%s", result)
	}
}

func linkTo(uid string, pod int32) *v1.BatchSetLinkedPodRequest_Item {
	return &v1.BatchSetLinkedPodRequest_Item{Uid: uid, PodId: &pod}
}

// links returns the links of the uids.
func (j *jobsOf) links(service string, uids ...string) (links []*v1.Link) {
	j.Helper()
	for _, uid := range uids {
		reply, err := v1.NewLinkServiceClient(j.conn).GetLinkedPod(j.Context(), &v1.GetLinkedPodRequest{
			Namespace: j.namespace, Service: service, Uid: uid,
		})
		require.NoError(j, err)
		links = append(links, reply.GetLink())
	}
	return links
}

// indexed waits until the index of the pod of chat has so many links: a dry run looks once.
func (j *jobsOf) indexed(pod int32, links int64) {
	j.Helper()
	require.EventuallyWithT(j, func(c *assert.CollectT) {
		reply, err := v1.NewFleetServiceClient(j.conn).CountPodLinks(j.Context(), &v1.CountPodLinksRequest{
			Namespace: j.namespace, Service: "chat",
		})
		require.NoError(c, err)
		found := int64(0)
		for _, count := range reply.GetCounts() {
			if count.GetPodId() == pod {
				found = count.GetLinks()
			}
		}
		require.Equal(c, links, found)
	}, 20*time.Second, 20*time.Millisecond)
}

func (j *jobsOf) cordon(service string, pod int32) v1.Routing {
	j.Helper()
	reply, err := v1.NewStateServiceClient(j.conn).GetServicePod(j.Context(), &v1.GetServicePodRequest{
		Namespace: j.namespace, Service: service, PodId: &pod,
	})
	require.NoError(j, err)
	return reply.GetPod().GetCordon()
}

// TestJobs: what an operator asks for by curl is done, on a real podlink and a real Redis.
func TestJobs(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	p := start(t, onRedis(server)...)
	p.WaitReady(t)
	t.Run("kinds", func(t *testing.T) { // The server is there until all of them have ended.
		for name, test := range map[string]func(*jobsOf){
			"relocate": relocates, "release": releases, "remove": removes, "cancel": cancels,
		} {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				test(aboutJobs(t, p, server))
			})
		}
	})
}

// relocates: the users of a pod go to the other pods, evenly, and keep their time to live. A dry run moves nobody.
func relocates(j *jobsOf) {
	const users = 300
	j.report("chat", 3)
	var uids []string
	var items []*v1.BatchSetLinkedPodRequest_Item
	for i := range users {
		uids = append(uids, fmt.Sprintf("user-%d", i))
		items = append(items, linkTo(uids[i], 1))
	}
	items[7].PersistSeconds, items[8].Claim = proto.Int32(600), 5
	j.link("chat", items...)
	j.link("chat", linkTo("elsewhere", 0))
	j.indexed(1, users)

	dry := j.await(j.create(`{"kind":"RELOCATE","service":"chat","podId":1,"dryRun":true}`).GetId())
	require.Equal(j, v1.Job_DONE, dry.GetState())
	require.EqualValues(j, users, dry.GetDone())
	require.Equal(j, v1.Routing_READY, j.cordon("chat", 1))
	for _, link := range j.links("chat", uids...) {
		require.EqualValues(j, 1, link.GetPodId())
	}

	const request = `{"kind":"RELOCATE","service":"chat","podId":1,"reason":"node 7","requestId":"empty:1"}`
	job := j.create(request)
	require.Equal(j, job.GetId(), j.create(request).GetId(), "the same request is the same job")
	reason, field := j.refused(strings.ReplaceAll(request, "node 7", "node 8"))
	require.Equal(j, "INVALID_ARGUMENT request_id", reason+" "+field)
	events := j.events(job.GetId())
	for i := 1; i < len(events); i++ {
		require.GreaterOrEqual(j, events[i].GetDone(), events[i-1].GetDone())
		require.Equal(j, i == len(events)-1, events[i].GetEndTime() != nil, "the last one says that it has ended")
	}
	done := events[len(events)-1]
	require.Equal(j, v1.Job_DONE, done.GetState(), "%s", done)
	require.EqualValues(j, users, done.GetDone())
	require.Equal(j, v1.Routing_SHUTDOWN, j.cordon("chat", 1))
	on := make(map[int32]int)
	for _, link := range j.links("chat", uids...) {
		on[link.GetPodId()]++
		require.Equal(j, link.GetUid() != "user-7", link.GetPersistent(), link.GetUid())
	}
	require.Equal(j, users, on[0]+on[2], "%v", on)
	require.InDelta(j, on[0], on[2], users/10)

	code, text := j.do(http.MethodGet, "", "")
	require.Equal(j, http.StatusOK, code)
	list := new(v1.ListJobsReply)
	require.NoError(j, protojson.Unmarshal(text, list))
	require.Len(j, list.GetJobs(), 2)
	require.True(j, proto.Equal(done, list.GetJobs()[0]), "the latest is first")

	reason, _ = j.refused(`{"kind":"RELOCATE","service":"alone","podId":0}`)
	require.Equal(j, "NO_AVAILABLE_POD", reason)
}

// releases: only links to the pod that an earlier process has claimed become temporary.
func releases(j *jobsOf) {
	j.report("chat", 3)
	claimed := func(uid string, pod int32, claim int64) *v1.BatchSetLinkedPodRequest_Item {
		item := linkTo(uid, pod)
		item.Claim = claim
		return item
	}
	j.link("chat", claimed("crashed", 1, 3), claimed("running", 1, 7), claimed("by-hand", 1, 0), claimed("neighbour", 2, 3))
	j.indexed(1, 3)
	const request = `{"kind":"RELEASE","service":"chat","podId":1,"keepSeconds":600,"belowGeneration":"7"}`
	dry := j.await(j.create(strings.TrimSuffix(request, "}") + `,"dryRun":true}`).GetId())
	require.EqualValues(j, 1, dry.GetDone())
	job := j.await(j.create(request).GetId())
	require.Equal(j, v1.Job_DONE, job.GetState(), "%s", job)
	require.EqualValues(j, 1, job.GetDone())
	for _, link := range j.links("chat", "crashed", "running", "by-hand", "neighbour") {
		require.Equal(j, link.GetUid() != "crashed", link.GetPersistent(), link.GetUid())
		require.Equal(j, link.GetUid() == "neighbour", link.GetPodId() == 2)
	}
}

// removes: a service is gone with all that it has, and its neighbour is not.
func removes(j *jobsOf) {
	for _, service := range []string{"chat", "room"} {
		j.report(service, 2)
		j.link(service, linkTo("ann", 0), linkTo("ben", 1))
		_, err := v1.NewWorkloadServiceClient(j.conn).SetWorkloadState(j.Context(), &v1.SetWorkloadStateRequest{
			Namespace: j.namespace, Service: service, State: "up",
		})
		require.NoError(j, err)
	}
	reason, field := j.refused(`{"kind":"REMOVE","service":"chat","confirm":"room"}`)
	require.Equal(j, "INVALID_ARGUMENT confirm", reason+" "+field)
	job := j.await(j.create(`{"kind":"REMOVE","service":"chat","confirm":"chat"}`).GetId())
	require.Equal(j, v1.Job_DONE, job.GetState(), "%s", job)
	require.EqualValues(j, 5, job.GetDone(), "two links, two pods, a workload")
	states := v1.NewStateServiceClient(j.conn)
	for service, left := range map[string]int{"chat": 0, "room": 2} {
		reply, err := states.GetServiceState(j.Context(), &v1.GetServiceStateRequest{Namespace: j.namespace, Service: service})
		require.NoError(j, err)
		require.Len(j, reply.GetPods(), left, service)
		there := 0
		for _, link := range j.links(service, "ann", "ben") {
			if link.GetPodId() >= 0 {
				there++
			}
		}
		require.Equal(j, left, there, service)
	}
	job = j.await(j.create(fmt.Sprintf(`{"kind":"REMOVE","confirm":%q}`, j.namespace)).GetId())
	require.Equal(j, v1.Job_DONE, job.GetState(), "%s", job)
	require.EqualValues(j, 5, job.GetDone(), "the other service")
	keys, err := j.redis.Keys(j.Context(), "podlink:link:"+j.namespace+":*").Result()
	require.NoError(j, err)
	require.Empty(j, keys)
}

// TestVerifyJob: what somebody has done to podlink's keys is found, and the index is repaired.
func TestVerifyJob(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	// Nobody takes a census, which would repair the index.
	require.NoError(t, server.Client(t).Set(t.Context(), "podlink:lease:census", "the test", time.Hour).Err())
	p := start(t, onRedis(server)...)
	p.WaitReady(t)
	j := aboutJobs(t, p, server)
	j.report("chat", 2)
	temporary := linkTo("cat", 1)
	temporary.PersistSeconds = proto.Int32(600)
	j.link("chat", linkTo("ann", 1), linkTo("ben", 1), temporary, linkTo("dan", 1), linkTo("zoe", 9))
	fleet := v1.NewFleetServiceClient(j.conn)
	listed := func() (uids []string) {
		reply, err := fleet.ListPodLinks(j.Context(), &v1.ListPodLinksRequest{Namespace: j.namespace, Service: "chat", PodId: proto.Int32(1)})
		require.NoError(j, err)
		for _, link := range reply.GetLinks() {
			uids = append(uids, link.GetUid())
		}
		slices.Sort(uids)
		return uids
	}
	require.Eventually(j, func() bool { return len(listed()) == 4 }, 20*time.Second, 20*time.Millisecond)

	key := func(kind, rest string) string { return "podlink:" + kind + ":" + j.namespace + ":" + rest }
	require.NoError(j, j.redis.HDel(j.Context(), key("index", "chat:1"), "ann", "ben").Err())
	require.NoError(j, j.redis.HSet(j.Context(), key("index", "chat:0"), "nobody", "5").Err())
	require.NoError(j, j.redis.SAdd(j.Context(), key("indexed", "chat"), "0").Err())
	require.NoError(j, j.redis.HSet(j.Context(), key("link", "dan"), "room", "garbage").Err())
	require.NoError(j, j.redis.Persist(j.Context(), key("link", "cat")).Err())
	faults := &v1.Job_Faults{
		EntriesWithoutLink: 1, LinksWithoutEntry: 2, LinksWithoutPod: 1, ForeignFields: 1, KeysWithoutExpiry: 1,
	}
	for range 2 { // It is found again: nothing was repaired.
		job := j.await(j.create(`{"kind":"VERIFY"}`).GetId())
		require.Equal(j, v1.Job_DONE, job.GetState(), "%s", job)
		require.True(j, proto.Equal(faults, job.GetFaults()), "%s", job)
		require.Zero(j, job.GetDone())
	}
	require.Equal(j, []string{"cat", "dan"}, listed())
	job := j.await(j.create(`{"kind":"VERIFY","service":"chat","repair":true}`).GetId())
	require.Equal(j, v1.Job_DONE, job.GetState(), "%s", job)
	require.EqualValues(j, 3, job.GetDone())
	require.Equal(j, []string{"ann", "ben", "cat", "dan"}, listed())
	job = j.await(j.create(`{"kind":"VERIFY","service":"chat"}`).GetId())
	require.Zero(j, job.GetFaults().GetEntriesWithoutLink()+job.GetFaults().GetLinksWithoutEntry(), "%s", job)
}

// cancels: a job that waits for the users of a pod ends when it is told to. The cordon stays.
func cancels(j *jobsOf) {
	j.report("chat", 2)
	j.link("chat", linkTo("ann", 1))
	job := j.create(`{"kind":"RELOCATE","service":"chat","podId":1,"graceSeconds":3600}`)
	require.Eventually(j, func() bool { return j.cordon("chat", 1) == v1.Routing_DENY_NEW }, 20*time.Second, 20*time.Millisecond)
	code, text := j.do(http.MethodPost, "/"+job.GetId()+":cancel", "{}")
	require.Equal(j, http.StatusOK, code, "%s", text)
	cancelled := j.await(job.GetId())
	require.Equal(j, v1.Job_CANCELLED, cancelled.GetState(), "%s", cancelled)
	require.Zero(j, cancelled.GetDone())
	require.EqualValues(j, 1, j.links("chat", "ann")[0].GetPodId())
	require.Equal(j, v1.Routing_DENY_NEW, j.cordon("chat", 1))
	code, text = j.do(http.MethodPost, "/"+job.GetId()+":cancel", "{}")
	require.Equal(j, http.StatusOK, code, "again: %s", text)
	code, _ = j.do(http.MethodGet, "/none", "")
	require.Equal(j, http.StatusNotFound, code)
}
