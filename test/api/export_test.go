package api

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/encoding/protojson"

	v1 "podlink/api/podlink/v1"
	"podlink/internal/conf"
	redistest "podlink/test/kit/redis"
)

// exporting is an export on a transport.
type exporting struct {
	next  func() (*v1.ExportLinksReply, error)
	leave context.CancelFunc
}

// export opens an export.
func (a *testApp) export(t *testing.T, over via, request *v1.ExportLinksRequest) exporting {
	t.Helper()
	ctx, leave := context.WithCancel(t.Context())
	t.Cleanup(leave)
	if over == overGRPC {
		stream, err := v1.NewFleetServiceClient(a.grpc).ExportLinks(ctx, request)
		require.NoError(t, err)
		return exporting{stream.Recv, leave}
	}
	query := url.Values{"service": {request.GetService()}, "resumeToken": {request.GetResumeToken()}}
	path := a.http + "/v1/namespaces/" + request.GetNamespace() + "/links:export?" + query.Encode()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, path, http.NoBody)
	require.NoError(t, err)
	response, err := http.DefaultClient.Do(r)
	require.NoError(t, err)
	t.Cleanup(func() { _ = response.Body.Close() })
	lines := bufio.NewReader(response.Body)
	return exporting{func() (*v1.ExportLinksReply, error) {
		line, err := lines.ReadBytes('\n')
		if err != nil {
			return nil, err
		}
		var failed struct{ Failure, Reason json.RawMessage }
		if json.Unmarshal(line, &failed) != nil || failed.Failure != nil || failed.Reason != nil {
			return nil, errors.New(string(line))
		}
		m := new(v1.ExportLinksReply)
		return m, protojson.Unmarshal(line, m)
	}, leave}
}

// rest adds what the export still sends to the links, and returns how often it has begun again.
func (e exporting) rest(t *testing.T, links map[string]*v1.Link) (restarts int) {
	t.Helper()
	for {
		m, err := e.next()
		require.NoError(t, err)
		require.LessOrEqual(t, len(m.GetLinks()), 1000)
		for _, link := range m.GetLinks() {
			links[link.GetService()+":"+link.GetUid()] = link
		}
		if m.GetRestart() != 0 {
			restarts++
		}
		if m.GetDone() {
			return restarts
		}
	}
}

// linkMany links so many users of the service, whose uids begin with the prefix, to pod 1.
func (a *testApp) linkMany(t *testing.T, namespace, service, prefix string, n int) {
	t.Helper()
	const batch = 100 // On a busy machine a longer one may not be done in the time of a request.
	for from := 0; from < n; from += batch {
		items := make([]string, min(batch, n-from))
		for i := range items {
			items[i] = fmt.Sprintf(`{"uid":"%s%d","podId":1,"claim":"7"}`, prefix, from+i)
		}
		set := fmt.Sprintf(`{"namespace":%q,"service":%q,"items":[%s]}`, namespace, service, strings.Join(items, ","))
		require.Eventually(t, func() bool {
			reply, ok := a.must(t, overGRPC, "BatchSetLinkedPod", set).into.(*v1.BatchSetLinkedPodReply)
			return ok && !slices.ContainsFunc(reply.GetResults(), func(r *v1.BatchSetLinkedPodReply_Result) bool { return r.GetProblem() != nil })
		}, 20*time.Second, time.Millisecond)
	}
}

// onCluster lets podlink run on a cluster of two primaries.
func onCluster(t *testing.T) []func(*conf.Bootstrap) {
	cluster := redistest.StartCluster(t, redistest.ClusterOptions{Primaries: 2})
	return []func(*conf.Bootstrap){func(c *conf.Bootstrap) {
		c.Data.Redis.Mode, c.Data.Redis.Addrs = conf.ModeCluster, cluster.Addrs()
	}}
}

// TestExportDuringChanges: an export has every link that stands, whatever comes and goes meanwhile, on each store and transport; and
// nothing of other namespaces and services.
func TestExportDuringChanges(t *testing.T) {
	const standing = 2500
	kinds := map[string]func(t *testing.T) []func(*conf.Bootstrap){"cluster": onCluster}
	for name, store := range stores {
		kinds[name] = store
	}
	for name, store := range kinds {
		t.Run(name, func(t *testing.T) {
			a := startApp(t, append(store(t), func(c *conf.Bootstrap) { c.Fleet.CensusRate = 10_000 })...)
			a.linkMany(t, "game", "room", "u", standing)
			a.linkMany(t, "game", "hall", "u", 10)
			a.linkMany(t, "play", "room", "p", 500)
			ctx, stop := context.WithCancel(t.Context())
			var changes sync.WaitGroup
			defer changes.Wait()
			defer stop()
			changes.Go(func() {
				for i := 0; ctx.Err() == nil; i++ {
					rpc, fields := "SetLinkedPod", `,"podId":1`
					if i%3 == 0 {
						rpc, fields = "RemoveLinkedPod", ""
					}
					_, _ = a.call(ctx, overGRPC, rpc, fmt.Sprintf(`{"namespace":"game","service":"room","uid":"c%d"%s}`, i%97, fields))
				}
			})
			for _, over := range transports {
				for _, service := range []string{"", "room"} {
					links := make(map[string]*v1.Link)
					a.export(t, over, &v1.ExportLinksRequest{Namespace: "game", Service: service}).rest(t, links)
					for i := range standing {
						link := links["room:u"+strconv.Itoa(i)]
						require.NotNil(t, link, i)
						require.EqualValues(t, 7, link.GetClaim())
					}
					for _, link := range links {
						require.Equal(t, "game", link.GetNamespace())
						require.True(t, service == "" || link.GetService() == service)
					}
					require.Equal(t, service == "", links["hall:u3"] != nil)
				}
			}
		})
	}
}

// TestExportResumesElsewhere: a token goes on at another podlink, over another transport, and after a restart of the store it says that it
// begins again.
func TestExportResumesElsewhere(t *testing.T) {
	const standing = 1500
	redis := redistest.Start(t)
	slow := func(c *conf.Bootstrap) { c.Fleet.CensusRate = 2000 }
	one, other := startApp(t, onRedis(redis), slow), startApp(t, onRedis(redis), slow)
	one.linkMany(t, "game", "room", "u", standing)
	token := ""
	for i, over := range transports {
		links := make(map[string]*v1.Link)
		first := one.export(t, over, &v1.ExportLinksRequest{Namespace: "game"})
		for range 3 {
			m, err := first.next()
			require.NoError(t, err)
			for _, link := range m.GetLinks() {
				links[link.GetService()+":"+link.GetUid()] = link
			}
			token = m.GetToken()
		}
		first.leave()
		require.Less(t, len(links), standing)
		request := &v1.ExportLinksRequest{Namespace: "game", ResumeToken: token}
		require.Zero(t, other.export(t, transports[1-i], request).rest(t, links))
		require.Len(t, links, standing)
	}

	redis.Kill()
	redis.Restart()
	for _, over := range transports {
		require.Eventually(t, func() bool {
			m, err := other.export(t, over, &v1.ExportLinksRequest{Namespace: "game", ResumeToken: token}).next()
			return err == nil && m.GetRestart() == v1.ExportLinksReply_STORE_CHANGED && m.GetToken() == ""
		}, 20*time.Second, 50*time.Millisecond)
	}
}

// TestExportOfASlowReader: an export goes no further than its reader, so it keeps little in memory, and is complete in the end.
func TestExportOfASlowReader(t *testing.T) {
	const standing, parts = 30_000, 30
	redis := redistest.Start(t)
	a := startApp(t, onRedis(redis), func(c *conf.Bootstrap) { c.Fleet.CensusRate, c.Fleet.Index = 1_000_000, false })
	a.linkMany(t, "game", "room", strings.Repeat("u", 200), standing)
	slow := a.export(t, overGRPC, &v1.ExportLinksRequest{Namespace: "game"})
	m, err := slow.next()
	require.NoError(t, err)
	require.NotEmpty(t, m.GetLinks())
	time.Sleep(time.Second) // Longer than all parts take.
	stats, err := redis.Client(t).Info(t.Context(), "commandstats").Result()
	require.NoError(t, err)
	_, calls, found := strings.Cut(stats, "cmdstat_scan:calls=")
	require.True(t, found)
	calls, _, _ = strings.Cut(calls, ",")
	scans, err := strconv.Atoi(calls)
	require.NoError(t, err)
	require.Less(t, scans, parts/2, "it waits for its reader")
	links := make(map[string]*v1.Link)
	for _, link := range m.GetLinks() {
		links[link.GetService()+":"+link.GetUid()] = link
	}
	require.Zero(t, slow.rest(t, links))
	require.Len(t, links, standing)
}
