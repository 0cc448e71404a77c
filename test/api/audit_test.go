package api

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/go-kratos/kratos/v2"
	"github.com/go-kratos/kratos/v2/log"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/types/known/durationpb"

	"podlink/internal/app"
	"podlink/internal/audit"
	"podlink/internal/conf"
	"podlink/internal/telemetry"
	"podlink/test/kit/logwatch"
	redistest "podlink/test/kit/redis"
)

// auditLines is where an audit log is written.
type auditLines struct{ logwatch.Log }

// of returns the records of a trace, once there are n.
func (l *auditLines) of(t *testing.T, trace string, n int) (records []map[string]any) {
	t.Helper()
	require.EventuallyWithT(t, func(c *assert.CollectT) {
		records = nil
		for line := range strings.Lines(l.String()) {
			var record map[string]any
			require.NoError(c, json.Unmarshal([]byte(line), &record))
			if record["trace_id"] == trace {
				records = append(records, record)
			}
		}
		require.Len(c, records, n)
	}, 10*time.Second, time.Millisecond)
	return records
}

// startAudited starts podlink with an audit log.
func startAudited(t *testing.T, o audit.Options, change ...func(*conf.Bootstrap)) (*testApp, *auditLines) {
	t.Helper()
	out := new(auditLines)
	o.Out = out
	audited, err := audit.New(o)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, audited.Close(context.Background())) })
	return startWired(t, func(
		c *conf.Bootstrap, level *telemetry.LogLevel, queue *telemetry.LogQueue, _ *audit.Log, logger log.Logger,
	) (*kratos.App, func(), error) {
		return app.New(c, level, queue, audited, logger)
	}, change...), out
}

// auditSteps are calls in a namespace of their own, with what their records say: pod, uid, previous_pod, outcome and detail.
var auditSteps = []struct {
	rpc, request string
	want         []string
}{
	{"SetServiceState", `"service":"room","podId":0,"state":"secret","load":5`, []string{
		"pod=0 outcome=reported detail=routing READY, load 5, ttl 30",
	}},
	{"SetServiceState", `"service":"room","podId":0,"state":"secret","load":6`, nil}, // A heartbeat.
	{"SetServiceState", `"service":"room","podId":0,"state":"secret","routing":"DENY_NEW"`, []string{
		"pod=0 outcome=reported detail=routing DENY_NEW, load 0, ttl 30",
	}},
	{"SetServiceState", `"service":"room","podId":0,"state":"secret"`, []string{
		"pod=0 outcome=reported detail=routing READY, load 0, ttl 30",
	}},
	{"SetLinkedPod", `"service":"room","uid":"u1","podId":0`, []string{"pod=0 uid=u1 epoch outcome=created"}},
	{"SetLinkedPod", `"service":"room","uid":"u1","podId":0,"persistSeconds":60`, []string{"pod=0 uid=u1 previous_pod=0 epoch outcome=kept"}},
	{"SetLinkedPod", `"service":"room","uid":"u1","podId":2`, []string{"pod=2 uid=u1 previous_pod=0 epoch outcome=moved"}},
	{"TrySetLinkedPod", `"service":"room","uid":"u1","podId":3`, nil},
	{"TrySetLinkedPod", `"service":"room","uid":"u2","podId":3`, []string{"pod=3 uid=u2 epoch outcome=created"}},
	{"SetLinkedPodIfAbsent", `"service":"room","uid":"u2","podId":4`, nil},
	{"SetLinkedPodIfAbsent", `"service":"room","uid":"u3","podId":4`, []string{"pod=4 uid=u3 epoch outcome=created"}},
	{"ComputeLinkedPod", `"service":"room","uid":"u4"`, []string{"pod=0 uid=u4 epoch outcome=created"}},
	{"ComputeLinkedPod", `"service":"room","uid":"u4"`, nil},
	{"ComputeLinkedPod", `"service":"room","uid":"u3"`, []string{"pod=0 uid=u3 previous_pod=4 epoch outcome=moved"}},
	{"RemoveLinkedPod", `"service":"room","uid":"u1","keepSeconds":60`, []string{"pod=2 uid=u1 previous_pod=2 outcome=expires"}},
	{"RemoveLinkedPod", `"service":"room","uid":"u1"`, []string{"uid=u1 previous_pod=2 outcome=removed"}},
	{"RemoveLinkedPod", `"service":"room","uid":"u1"`, nil},
	{"RemoveLinkedPodWithId", `"service":"room","uid":"u2","podId":9`, nil},
	{"RemoveLinkedPodWithId", `"service":"room","uid":"u2","podId":3`, []string{"uid=u2 previous_pod=3 outcome=removed"}},
	{"BatchSetLinkedPod", `"service":"room","items":[{"uid":"b1","podId":0},{"uid":"u3","podId":5,"ifAbsent":true},
		{"uid":"b2","podId":1}]`, []string{
		"pod=0 uid=b1 epoch outcome=created", "pod=1 uid=b2 epoch outcome=created",
	}},
	{"BatchComputeLinkedPod", `"service":"room","items":[{"uid":"b1"},{"uid":"b3"}]`, []string{"pod=0 uid=b3 epoch outcome=created"}},
	{"BatchRemoveLinkedPod", `"service":"room","items":[{"uid":"b1"},{"uid":"gone"},{"uid":"b2","keepSeconds":9}]`, []string{
		"uid=b1 previous_pod=0 outcome=removed", "pod=1 uid=b2 previous_pod=1 outcome=expires",
	}},
	{"CordonPod", `"service":"room","podId":0,"cordon":"DENY_NEW","ttlSeconds":60`, []string{
		"pod=0 outcome=cordoned detail=cordon DENY_NEW, ttl 60",
	}},
	{"CordonPod", `"service":"room","podId":0,"cordon":"READY"`, []string{"pod=0 outcome=cordoned detail=cordon READY"}},
	{"RemoveServiceState", `"service":"room","podId":0`, []string{"pod=0 outcome=removed"}},
	{"RemoveServiceState", `"service":"room","podId":0`, nil},
	{"SetWorkloadState", `"service":"room","state":"secret"`, []string{"outcome=set"}},
	{"RemoveWorkloadState", `"service":"room"`, []string{"outcome=removed"}},
	{"RemoveWorkloadState", `"service":"room"`, nil},
	{"GetLinkedPod", `"service":"room","uid":"u3"`, nil},
}

// TestAudit: the records of each mutation over each transport, in which no state is.
func TestAudit(t *testing.T) {
	a, lines := startAudited(t, audit.Options{AllMutations: true, PlainUIDs: true})
	ctx := metadata.AppendToOutgoingContext(t.Context(), "x-podlink-reason", "node broken")
	for _, over := range forms {
		t.Run(string(over), func(t *testing.T) {
			namespace := strings.ReplaceAll("by-"+strings.ToLower(string(over)), " ", "-")
			called := make(map[string]bool)
			for i, step := range auditSteps {
				got, err := a.call(ctx, over, step.rpc, fmt.Sprintf(`{"namespace":%q,%s}`, namespace, step.request))
				require.NoError(t, err)
				at := fmt.Sprintf("step %d: %s: %+v", i, step.rpc, got.problem)
				require.True(t, got.ok(), at)
				var summaries []string
				for _, record := range lines.of(t, got.trace, len(step.want)) {
					method := rpcs[step.rpc]
					require.Equal(t, fmt.Sprintf("/%s/%s", method.Parent().FullName(), method.Name()), record["operation"], at)
					require.Equal(t, namespace, record["namespace"], at)
					require.Equal(t, "room", record["service"], at)
					require.Equal(t, "node broken", record["reason"], at)
					require.Equal(t, "change", record["event"], at)
					host, _, err := net.SplitHostPort(record["peer"].(string))
					require.NoError(t, err)
					require.Equal(t, "127.0.0.1", host, at)
					summaries = append(summaries, summaryOf(record))
					called[step.rpc] = true
				}
				require.Equal(t, step.want, summaries, at)
			}
			for _, name := range mutations {
				require.True(t, called[name], "no step has a record of %s", name)
			}
		})
	}
	want := 0
	for _, step := range auditSteps {
		want += len(step.want) * len(forms)
	}
	require.Equal(t, want, strings.Count(lines.String(), "\n"))
	require.NotContains(t, lines.String(), "secret")
}

// summaryOf returns the keys of a record that differ from call to call.
func summaryOf(record map[string]any) string {
	var parts []string
	for _, key := range []string{"pod", "uid", "previous_pod", "epoch", "outcome", "detail"} {
		value, ok := record[key]
		switch {
		case !ok:
		case key == "epoch":
			parts = append(parts, key)
		default:
			parts = append(parts, fmt.Sprintf("%s=%v", key, value))
		}
	}
	return strings.Join(parts, " ")
}

// TestAuditWithoutIdentities: with auth.mode off the message says which right a change needs, and the peer who made it.
func TestAuditWithoutIdentities(t *testing.T) {
	a, lines := startAudited(t, audit.Options{PlainUIDs: true})
	for _, row := range []struct{ rpc, request, right string }{
		{"SetServiceState", `"podId":0,"state":"up"`, ""},
		{"SetServiceState", `"podId":0,"state":"up","ttlSeconds":-1`, "operate"},
		{"CordonPod", `"podId":0,"cordon":"READY"`, "operate"},
		{"ComputeLinkedPod", `"uid":"u1"`, ""},
		{"SetLinkedPod", `"uid":"u1","podId":1`, "force"},
		{"SetLinkedPod", `"uid":"u2","podId":1,"expectedEpoch":"0"`, ""},
		{"RemoveLinkedPod", `"uid":"u1"`, "force"},
		{"RemoveLinkedPodWithId", `"uid":"u2","podId":1`, ""},
		{"SetWorkloadState", `"state":"up"`, "operate"},
	} {
		for _, over := range transports {
			got := a.must(t, over, row.rpc, fmt.Sprintf(`{"namespace":%q,"service":"room",%s}`, over, row.request))
			require.True(t, got.ok(), "%s: %+v", row.rpc, got.problem)
			if row.right == "" {
				require.Empty(t, lines.of(t, got.trace, 0), row.rpc)
				continue
			}
			record := lines.of(t, got.trace, 1)[0]
			require.Equal(t, row.right, record["right"], row.rpc)
			require.Contains(t, record["peer"], "127.0.0.1:", row.rpc)
			require.NotContains(t, record, "identity", row.rpc)
		}
	}
}

// TestAuditOfUncertainChanges: changes that were made, or perhaps, although the call failed.
func TestAuditOfUncertainChanges(t *testing.T) {
	server := redistest.Start(t)
	for name, row := range map[string]struct {
		change       func(*conf.Bootstrap)
		rpc, request string
		want         string
	}{
		"unconfirmed": {
			withoutReplica, "SetLinkedPod", `"uid":"u1","podId":7`, "pod=7 uid=u1 outcome=REPLICATION_UNCONFIRMED",
		},
		"unconfirmed item": {
			withoutReplica, "BatchSetLinkedPod", `"items":[{"uid":"u1","podId":7}]`, "pod=7 uid=u1 outcome=REPLICATION_UNCONFIRMED",
		},
		"unconfirmed removal": {
			withoutReplica, "BatchRemoveLinkedPod", `"items":[{"uid":"u2"}]`, "uid=u2 outcome=REPLICATION_UNCONFIRMED",
		},
		"unconfirmed report": {
			withoutReplica, "SetServiceState", `"podId":3,"state":"secret"`, "pod=3 outcome=REPLICATION_UNCONFIRMED",
		},
	} {
		for _, over := range transports {
			t.Run(name+" over "+string(over), func(t *testing.T) {
				holding("podlink:link:ns:u2", "room", "7 5 0")(t, server)
				a, lines := startAudited(t, audit.Options{AllMutations: true, PlainUIDs: true}, onRedis(server), row.change)
				got := a.must(t, over, row.rpc, `{"namespace":"ns","service":"room",`+row.request+`}`)
				require.Equal(t, row.want, summaryOf(lines.of(t, got.trace, 1)[0]))
			})
		}
	}
	t.Run("lost reply", func(t *testing.T) {
		proxy := redistest.NewProxy(t, server.Addr())
		a, lines := startAudited(t, audit.Options{AllMutations: true, PlainUIDs: true}, onRedis(server), func(c *conf.Bootstrap) {
			c.Data.Redis.Addrs = []string{proxy.Addr()}
		})
		proxy.LoseReplies(1)
		got := a.must(t, overGRPC, "SetLinkedPod", `{"namespace":"ns","service":"room","uid":"u1","podId":7}`)
		require.Equal(t, "OUTCOME_UNKNOWN", got.Reason)
		require.Equal(t, "pod=7 uid=u1 outcome=OUTCOME_UNKNOWN", summaryOf(lines.of(t, got.trace, 1)[0]))
	})
	t.Run("refused before anything was sent", func(t *testing.T) {
		a, lines := startAudited(t, audit.Options{AllMutations: true})
		got := a.must(t, overGRPC, "RemoveLinkedPod", `{"namespace":"ns","service":"room","uid":""}`)
		require.Equal(t, "INVALID_ARGUMENT", got.Reason)
		require.Empty(t, lines.of(t, got.trace, 0))
	})
}

// withoutReplica makes podlink wait for a replica that is not there.
func withoutReplica(c *conf.Bootstrap) {
	c.Data.Redis.WaitReplicas = 1
	c.Data.Redis.WaitTimeout = durationpb.New(20 * time.Millisecond)
}
