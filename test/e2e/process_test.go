package e2e

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/protobuf/proto"

	v1 "podlink/api/podlink/v1"
	"podlink/test/redistest"
)

func dial(t *testing.T, addr string) *grpc.ClientConn {
	t.Helper()
	conn, err := grpc.NewClient(addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// onRedis makes podlink use a Redis.
func onRedis(redis *redistest.Server) []string {
	return []string{"PODLINK_DATA_REDIS_MODE=standalone", "PODLINK_DATA_REDIS_ADDRS=" + redis.Addr()}
}

func TestReadyWithinASecondAndSmall(t *testing.T) {
	p := start(t, onRedis(redistest.Start(t))...)
	require.Eventually(t, func() bool {
		code, _ := p.ready(t)
		return code == http.StatusOK
	}, 5*time.Second, time.Millisecond)
	took := time.Since(p.started)
	require.Less(t, took, time.Second, "from the start of the process to ready")

	memory := residentMemory(t, p.cmd.Process.Pid)
	require.Less(t, memory, 40<<20, "idle memory in bytes")
	t.Logf("ready after %s, %d KiB resident", took.Round(time.Millisecond), memory>>10)
}

// residentMemory returns VmRSS in bytes.
func residentMemory(t *testing.T, pid int) int {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Skip("needs /proc")
	}
	found := regexp.MustCompile(`VmRSS:\s+(\d+) kB`).FindSubmatch(text)
	require.NotNil(t, found)
	kib, err := strconv.Atoi(string(found[1]))
	require.NoError(t, err)
	return kib << 10
}

func TestStartsWithoutRedisAndIsReadyWhenItComes(t *testing.T) {
	redis := redistest.Start(t)
	redis.Kill()
	p := start(t, onRedis(redis)...)
	code, reason := p.ready(t)
	require.Equal(t, http.StatusServiceUnavailable, code)
	require.NotEmpty(t, reason)
	require.Contains(t, p.log.String(), "the store is not ready")

	redis.Restart()
	require.Eventually(t, func() bool {
		code, reason = p.ready(t)
		return code == http.StatusOK
	}, 5*time.Second, 20*time.Millisecond, "not ready: %s", reason)
	require.Eventually(t, func() bool { return strings.Contains(p.log.String(), "podlink is ready again") },
		time.Second, time.Millisecond)
}

func TestNotReadyOnARedisThatEvicts(t *testing.T) {
	redis := redistest.Start(t, "--maxmemory-policy", "allkeys-lru")
	code, reason := start(t, onRedis(redis)...).ready(t)
	require.Equal(t, http.StatusServiceUnavailable, code)
	require.Contains(t, reason, "noeviction")

	accepting := append(onRedis(redis), "PODLINK_DATA_REDIS_ALLOW_EVICTION=true")
	code, reason = start(t, accepting...).ready(t)
	require.Equal(t, http.StatusOK, code, reason)
}

func TestBothTransportsSeeTheSameLink(t *testing.T) {
	p := start(t)
	ctx := t.Context()
	links := v1.NewLinkServiceClient(dial(t, p.grpc))
	set, err := links.SetLinkedPod(ctx, &v1.SetLinkedPodRequest{
		Namespace: "game", Uid: "a/b", Service: "room", PodId: proto.Int32(0),
	})
	require.NoError(t, err)

	response, err := http.Get("http://" + p.http + "/v1/namespaces/game/links/a%2Fb/services/room")
	require.NoError(t, err)
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	require.NoError(t, err)
	require.JSONEq(t, fmt.Sprintf(`{"link": {"namespace": "game", "uid": "a/b", "service": "room", "podId": 0,
		"persistent": true, "ttlSeconds": -1, "epoch": "%d"}}`, set.GetLink().GetEpoch()), string(body))

	health, err := grpc_health_v1.NewHealthClient(dial(t, p.grpc)).Check(ctx, &grpc_health_v1.HealthCheckRequest{})
	require.NoError(t, err)
	require.Equal(t, grpc_health_v1.HealthCheckResponse_SERVING, health.GetStatus())
}

func TestAdminListener(t *testing.T) {
	p := start(t)
	get := func(path string) (int, string) {
		response, err := http.Get("http://" + p.admin + path)
		require.NoError(t, err)
		defer response.Body.Close()
		body, err := io.ReadAll(response.Body)
		require.NoError(t, err)
		return response.StatusCode, string(body)
	}
	request, err := http.Get("http://" + p.http + "/v1/namespaces/game/links/secret-uid")
	require.NoError(t, err)
	_ = request.Body.Close()

	code, body := get("/healthz")
	require.Equal(t, http.StatusOK, code)
	require.JSONEq(t, `{"status": "ok"}`, body)
	code, body = get("/readyz")
	require.Equal(t, http.StatusOK, code)
	require.JSONEq(t, `{"status": "ready"}`, body)
	code, body = get("/metrics")
	require.Equal(t, http.StatusOK, code)
	for _, want := range []string{
		`podlink_build_info{go="go`, `version="v1.2.3-test"} 1`, "go_goroutines", "process_resident_memory_bytes",
		`server_requests_code_total{code="200",kind="http",operation="/podlink.v1.LinkService/ListLinkedServices",reason=""} 1`,
		`server_requests_seconds_count{kind="http",operation="/podlink.v1.LinkService/ListLinkedServices"} 1`,
	} {
		require.Contains(t, body, want)
	}
	require.NotContains(t, body, "secret-uid")
	code, _ = get("/debug/pprof/")
	require.Equal(t, http.StatusNotFound, code)
}

// TestStopUnderLoadFailsNoRequest stops one of two podlinks while callers are busy on both transports. As in a cluster,
// the callers are sent where /readyz says so; none of their calls fails.
func TestStopUnderLoadFailsNoRequest(t *testing.T) {
	redis := redistest.Start(t)
	stopping, staying := start(t, onRedis(redis)...), start(t, onRedis(redis)...)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	var moved atomic.Bool
	var before, after atomic.Int64
	var failed sync.Map
	var callers sync.WaitGroup
	load := func(call func(p *process, n int) error) {
		callers.Go(func() {
			for n := 0; ctx.Err() == nil && after.Load() < 500; n++ {
				target, answered := stopping, &before
				if moved.Load() {
					target, answered = staying, &after
				}
				if err := call(target, n); err != nil {
					failed.Store(err.Error(), true)
					return
				}
				answered.Add(1)
			}
		})
	}
	for i := range 8 {
		client := &http.Client{Transport: &http.Transport{}}
		t.Cleanup(client.CloseIdleConnections)
		load(func(p *process, n int) error { return put(ctx, client, p.http, fmt.Sprintf("http-%d", i), n%3) })

		links := map[*process]v1.LinkServiceClient{
			stopping: v1.NewLinkServiceClient(dial(t, stopping.grpc)),
			staying:  v1.NewLinkServiceClient(dial(t, staying.grpc)),
		}
		load(func(p *process, n int) error { return set(ctx, links[p], fmt.Sprintf("grpc-%d", i), n%3) })
	}
	time.Sleep(300 * time.Millisecond)
	require.NoError(t, stopping.cmd.Process.Signal(syscall.SIGTERM))
	require.Eventually(t, func() bool {
		code, _ := stopping.ready(t)
		return code == http.StatusServiceUnavailable
	}, time.Second, 10*time.Millisecond, "a podlink that stops says so")
	time.Sleep(300 * time.Millisecond) // It takes a while until everybody knows; podlink serves on.
	moved.Store(true)
	<-stopping.exited
	callers.Wait()

	failed.Range(func(text, _ any) bool {
		t.Errorf("a call failed: %s", text)
		return true
	})
	require.Equal(t, 0, stopping.cmd.ProcessState.ExitCode(), "exit code")
	require.Greater(t, before.Load(), int64(100), "too few calls to say anything")
	require.GreaterOrEqual(t, after.Load(), int64(200))
	t.Logf("%d calls answered by the podlink that stopped, %d by the other, 0 failed", before.Load(), after.Load())
}

// TestStopAnswersRequestsInProgress stops podlink while Redis hangs: what was accepted is answered when Redis goes on.
func TestStopAnswersRequestsInProgress(t *testing.T) {
	redis := redistest.Start(t)
	p := start(t, append(onRedis(redis), "PODLINK_SERVER_STOP_DRAIN=0s")...)
	client := &http.Client{Transport: &http.Transport{}}
	t.Cleanup(client.CloseIdleConnections)
	links := v1.NewLinkServiceClient(dial(t, p.grpc))
	require.NoError(t, put(t.Context(), client, p.http, "warm", 0))
	require.NoError(t, set(t.Context(), links, "warm", 0))

	redis.Pause()
	answers := make(chan error, 2)
	go func() { answers <- put(t.Context(), client, p.http, "alice", 1) }()
	go func() { answers <- set(t.Context(), links, "bob", 1) }()
	time.Sleep(100 * time.Millisecond)
	require.NoError(t, p.cmd.Process.Signal(syscall.SIGTERM))
	time.Sleep(100 * time.Millisecond)
	redis.Resume()
	require.NoError(t, <-answers)
	require.NoError(t, <-answers)
	<-p.exited
	require.Equal(t, 0, p.cmd.ProcessState.ExitCode(), "exit code")
}

func set(ctx context.Context, links v1.LinkServiceClient, uid string, pod int) error {
	_, err := links.SetLinkedPod(ctx, &v1.SetLinkedPodRequest{
		Namespace: "game", Uid: uid, Service: "room", PodId: proto.Int32(int32(pod)),
	})
	return err
}

func put(ctx context.Context, client *http.Client, addr, uid string, pod int) error {
	url := "http://" + addr + "/v1/namespaces/game/links/" + uid + "/services/room"
	body := strings.NewReader(fmt.Sprintf(`{"podId": %d}`, pod))
	request, err := http.NewRequestWithContext(ctx, http.MethodPut, url, body)
	if err != nil {
		return err
	}
	request.Header.Set("Content-Type", "application/json")
	response, err := client.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		return err
	}
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("status %d: %s", response.StatusCode, text)
	}
	return nil
}

func TestStopEndsAHealthWatch(t *testing.T) {
	p := start(t)
	watch, err := grpc_health_v1.NewHealthClient(dial(t, p.grpc)).Watch(t.Context(), &grpc_health_v1.HealthCheckRequest{})
	require.NoError(t, err)
	_, err = watch.Recv()
	require.NoError(t, err)
	begin := time.Now()
	require.Equal(t, 0, p.stop(t))
	require.Less(t, time.Since(begin), 5*time.Second, "a watch holds up the stop")
}

func TestCommandLine(t *testing.T) {
	for name, row := range map[string]struct {
		args []string
		env  string
		code int
		want string
	}{
		"version":           {[]string{"-version"}, "", 0, "podlink v1.2.3-test go1."},
		"help":              {[]string{"-h"}, "", 0, "Usage: podlink [-conf PATH] [-version]"},
		"unknown flag":      {[]string{"-config", "x"}, "", 2, "flag provided but not defined: -config"},
		"argument":          {[]string{"serve"}, "", 2, `unexpected argument "serve"`},
		"absent file":       {[]string{"-conf", "absent.yaml"}, "", 2, "absent.yaml: no such file"},
		"wrong environment": {nil, "PODLINK_LIMITS_MAX_BATCH=0", 2, "limits.max_batch must be from 1 to 100000, is 0"},
		"address taken":     {nil, "PODLINK_SERVER_HTTP_ADDR=192.0.2.1:80", 1, "cannot assign requested address"},
	} {
		t.Run(name, func(t *testing.T) {
			cmd := exec.Command(binary, row.args...)
			cmd.Env = append(os.Environ(), row.env)
			out, err := cmd.CombinedOutput()
			var exit *exec.ExitError
			if err != nil {
				require.ErrorAs(t, err, &exit)
			}
			require.Equal(t, row.code, cmd.ProcessState.ExitCode(), string(out))
			require.Contains(t, string(out), row.want)
		})
	}
}
