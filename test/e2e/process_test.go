package e2e

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/protobuf/proto"

	v1 "podlink/api/podlink/v1"
	podlinktest "podlink/test/kit/podlink"
	redistest "podlink/test/kit/redis"
)

func TestReadyWithinASecondAndSmall(t *testing.T) {
	p := start(t, onRedis(redistest.Start(t))...)
	require.Eventually(t, func() bool {
		code, _ := p.Ready(t)
		return code == http.StatusOK
	}, 5*time.Second, time.Millisecond)
	took := time.Since(p.Started)
	require.Less(t, took, time.Second, "from the start of the process to ready")

	memory := residentMemory(t, p.PID())
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
	code, reason := p.Ready(t)
	require.Equal(t, http.StatusServiceUnavailable, code)
	require.NotEmpty(t, reason)
	p.Log.Wait(t, "the store is not ready")

	redis.Restart()
	require.Eventually(t, func() bool {
		code, reason = p.Ready(t)
		return code == http.StatusOK
	}, 5*time.Second, 20*time.Millisecond, "not ready: %s", reason)
	require.Eventually(t, func() bool { return strings.Contains(p.Log.String(), "the store is ready again") },
		time.Second, time.Millisecond)
}

func TestNotReadyOnARedisThatEvicts(t *testing.T) {
	redis := redistest.Start(t, "--maxmemory-policy", "allkeys-lru")
	code, reason := start(t, onRedis(redis)...).Ready(t)
	require.Equal(t, http.StatusServiceUnavailable, code)
	require.Contains(t, reason, "noeviction")

	accepting := append(onRedis(redis), "PODLINK_DATA_REDIS_ALLOW_EVICTION=true")
	code, reason = start(t, accepting...).Ready(t)
	require.Equal(t, http.StatusOK, code, reason)
}

func TestBothTransportsSeeTheSameLink(t *testing.T) {
	p := start(t)
	ctx := t.Context()
	links := v1.NewLinkServiceClient(p.Conn(t))
	set, err := links.SetLinkedPod(ctx, &v1.SetLinkedPodRequest{
		Namespace: "game", Uid: "a/b", Service: "room", PodId: proto.Int32(0),
	})
	require.NoError(t, err)

	response, err := http.Get("http://" + p.HTTP + "/v1/namespaces/game/links/a%2Fb/services/room")
	require.NoError(t, err)
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	require.NoError(t, err)
	require.JSONEq(t, fmt.Sprintf(`{"link": {"namespace": "game", "uid": "a/b", "service": "room", "podId": 0,
		"persistent": true, "ttlSeconds": -1, "epoch": "%d", "claim": "0"}}`, set.GetLink().GetEpoch()), string(body))

	health, err := grpc_health_v1.NewHealthClient(p.Conn(t)).Check(ctx, &grpc_health_v1.HealthCheckRequest{})
	require.NoError(t, err)
	require.Equal(t, grpc_health_v1.HealthCheckResponse_SERVING, health.GetStatus())
}

func TestAdminListener(t *testing.T) {
	p := start(t)
	p.WaitReady(t)
	get := func(path string) (int, string) {
		response, err := http.Get("http://" + p.Admin + path)
		require.NoError(t, err)
		defer response.Body.Close()
		body, err := io.ReadAll(response.Body)
		require.NoError(t, err)
		return response.StatusCode, string(body)
	}
	request, err := http.Get("http://" + p.HTTP + "/v1/namespaces/game/links/secret-uid")
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
		`podlink_build_info{go="go`, `version="` + podlinktest.Version + `"} 1`,
		"go_goroutines", "process_resident_memory_bytes",
		`server_requests_code_total{code="200",kind="http",operation="/podlink.v1.LinkService/ListLinkedServices",reason=""} 1`,
		`server_requests_seconds_count{kind="http",operation="/podlink.v1.LinkService/ListLinkedServices"} 1`,
	} {
		require.Contains(t, body, want)
	}
	require.NotContains(t, body, "secret-uid")
	code, _ = get("/debug/pprof/")
	require.Equal(t, http.StatusNotFound, code)
}

// TestStopUnderLoadFailsNoRequest stops one of two podlinks under load on both transports. As in a cluster, the callers move to
// the other one once /readyz fails, and no call fails.
func TestStopUnderLoadFailsNoRequest(t *testing.T) {
	redis := redistest.Start(t)
	stopping, staying := start(t, onRedis(redis)...), start(t, onRedis(redis)...)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	var moved atomic.Bool
	var before, after atomic.Int64
	var failed sync.Map
	var callers sync.WaitGroup
	load := func(call func(p *podlinktest.Process, n int) error) {
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
		load(func(p *podlinktest.Process, n int) error {
			return put(ctx, client, p.HTTP, fmt.Sprintf("http-%d", i), n%3)
		})

		links := map[*podlinktest.Process]v1.LinkServiceClient{
			stopping: v1.NewLinkServiceClient(stopping.Conn(t)),
			staying:  v1.NewLinkServiceClient(staying.Conn(t)),
		}
		load(func(p *podlinktest.Process, n int) error { return set(ctx, links[p], fmt.Sprintf("grpc-%d", i), n%3) })
	}
	time.Sleep(300 * time.Millisecond)
	stopping.Terminate(t)
	require.Eventually(t, func() bool {
		code, _ := stopping.Ready(t)
		return code == http.StatusServiceUnavailable
	}, time.Second, 10*time.Millisecond, "a stopping podlink is not ready")
	time.Sleep(300 * time.Millisecond) // Callers move with a delay; podlink still serves them.
	moved.Store(true)
	code := stopping.Wait(t)
	callers.Wait()

	failed.Range(func(text, _ any) bool {
		t.Errorf("a call failed: %s", text)
		return true
	})
	require.Equal(t, 0, code, "exit code")
	require.Greater(t, before.Load(), int64(100), "too few calls for a result")
	require.GreaterOrEqual(t, after.Load(), int64(200))
	t.Logf("%d calls answered by the stopped podlink, %d by the other, 0 failed", before.Load(), after.Load())
}

// TestStopAnswersRequestsInProgress stops podlink while Redis hangs: requests in progress are answered once Redis resumes.
func TestStopAnswersRequestsInProgress(t *testing.T) {
	redis := redistest.Start(t)
	p := start(t, append(onRedis(redis), "PODLINK_SERVER_STOP_DRAIN=0s")...)
	client := &http.Client{Transport: &http.Transport{}}
	t.Cleanup(client.CloseIdleConnections)
	links := v1.NewLinkServiceClient(p.Conn(t))
	require.NoError(t, put(t.Context(), client, p.HTTP, "warm", 0))
	require.NoError(t, set(t.Context(), links, "warm", 0))

	redis.Pause()
	answers := make(chan error, 2)
	go func() { answers <- put(t.Context(), client, p.HTTP, "alice", 1) }()
	go func() { answers <- set(t.Context(), links, "bob", 1) }()
	time.Sleep(100 * time.Millisecond)
	p.Terminate(t)
	time.Sleep(100 * time.Millisecond)
	redis.Resume()
	require.NoError(t, <-answers)
	require.NoError(t, <-answers)
	require.Equal(t, 0, p.Wait(t), "exit code")
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
	watch, err := grpc_health_v1.NewHealthClient(p.Conn(t)).Watch(t.Context(), &grpc_health_v1.HealthCheckRequest{})
	require.NoError(t, err)
	_, err = watch.Recv()
	require.NoError(t, err)
	begin := time.Now()
	require.Equal(t, 0, p.Stop(t))
	require.Less(t, time.Since(begin), 5*time.Second, "a watch holds up the stop")
}

func TestCommandLine(t *testing.T) {
	taken, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer taken.Close()
	addr := taken.Addr().String()
	for name, row := range map[string]struct {
		args []string
		env  string
		code int
		want string
	}{
		"version":          {[]string{"-version"}, "", 0, "podlink " + podlinktest.Version + " go1."},
		"help":             {[]string{"-help"}, "", 0, "Usage: podlink [-conf PATH] [-check | -health | -version]"},
		"two commands":     {[]string{"-check", "-health"}, "", 2, "only one of -check, -health and -version"},
		"unknown variable": {nil, "PODLINK_REDIS_MODE=cluster", 2, "PODLINK_REDIS_MODE is not a known variable; the nearest is PODLINK_DATA_"},
		"embedded store": {
			nil, "PODLINK_SERVER_HTTP_ADDR=0.0.0.0:0", 2, "data.redis.allow_embedded must be true for mode embedded, whose links are in " +
				"memory only, together with server.http.addr 0.0.0.0:0",
		},
		"invalid to check":  {[]string{"-check"}, "PODLINK_LIMITS_MAX_BATCH=0", 2, "limits.max_batch must be from 1 to 100000, is 0"},
		"invalid to health": {[]string{"-health"}, "PODLINK_LIMITS_MAX_BATCH=0", 1, "limits.max_batch must be from 1 to 100000, is 0"},
		"log in a folder":   {nil, "PODLINK_LOG_FILE=/", 2, "configuration: log.file: "},
		"bad CA":            {nil, "PODLINK_TRACE_TLS_CA_FILE=/dev/null", 2, "trace.tls.enabled must be true"},
		"unknown flag":      {[]string{"-config", "x"}, "", 2, "flag provided but not defined: -config"},
		"argument":          {[]string{"serve"}, "", 2, `unexpected argument "serve"`},
		"absent file":       {[]string{"-conf", "absent.yaml"}, "", 2, "absent.yaml: no such file"},
		"wrong environment": {nil, "PODLINK_LIMITS_MAX_BATCH=0", 2, "limits.max_batch must be from 1 to 100000, is 0"},
		"address taken": {
			nil, "PODLINK_SERVER_GRPC_ADDR=" + addr, 1, "server.grpc.addr: listen tcp " + addr + ": bind: address already in use",
		},
	} {
		t.Run(name, func(t *testing.T) {
			cmd := exec.Command(binary, row.args...)
			cmd.Env = append(os.Environ(), "PODLINK_SERVER_HTTP_ADDR=127.0.0.1:0", "PODLINK_SERVER_ADMIN_ADDR=127.0.0.1:0", row.env)
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
