package attacks

import (
	"fmt"
	"os"
	"regexp"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	otlptest "podlink/test/kit/otlp"
	podlinktest "podlink/test/kit/podlink"
	"podlink/test/kit/proc"
	redistest "podlink/test/kit/redis"
)

// start starts podlink on a Redis.
func start(t *testing.T, env ...string) *podlinktest.Process {
	t.Helper()
	p := podlinktest.Start(t, binary, append(append(podlinktest.OnRedis("standalone", redistest.Start(t).Addr()),
		"PODLINK_SERVER_HTTP_TIMEOUT="+callTimeout.String(), "PODLINK_SERVER_GRPC_TIMEOUT="+callTimeout.String()), env...)...)
	p.WaitReady(t)
	return p
}

var progress = regexp.MustCompile(`attacking tried=(\d+) refused=(\d+)`)

// under attacks podlink while the neighbour calls it. It returns how often the attacker has tried, and how often podlink refused, as
// far as the attacker notices.
func under(t *testing.T, attack string, p *podlinktest.Process) (n *neighbour, tried, refused int) {
	t.Helper()
	return during(t, attackTime, attack, p)
}

func during(t *testing.T, d time.Duration, attack string, p *podlinktest.Process) (n *neighbour, tried, refused int) {
	t.Helper()
	require.Contains(t, attacks, attack)
	n = newNeighbour(t, p)
	n.live(t, 200*time.Millisecond) // Its connections, before the attack.
	n.took, n.failed = nil, nil
	evil := proc.Start(t, proc.Command{Program: os.Args[0], Env: []string{
		attackVariable + "=" + attack, grpcVariable + "=" + p.GRPC, httpVariable + "=" + p.HTTP, adminVariable + "=" + p.Admin,
	}})
	evil.Log.Wait(t, "attacking")
	n.live(t, d)
	lines := progress.FindAllStringSubmatch(evil.Log.String(), -1)
	tried, err := strconv.Atoi(lines[len(lines)-1][1])
	require.NoError(t, err)
	refused, err = strconv.Atoi(lines[len(lines)-1][2])
	require.NoError(t, err)
	t.Logf("%s: tried %d in %s, refused %d", attack, tried, d, refused)
	t.Logf("podlink: %.0f MiB, %.0f goroutines", p.Metric(t, "process_resident_memory_bytes")/(1<<20), p.Metric(t, "go_goroutines"))
	return n, tried, refused
}

const quiet = 20 * time.Millisecond

// TestHalfOpenStreams: calls whose message never comes are bounded, on a connection and for an address.
func TestHalfOpenStreams(t *testing.T) {
	p := start(t)
	n, tried, refused := during(t, longAttackTime, "half-open streams", p)
	requireSmall(t, p)
	n.requireWell(t, quiet)
	require.Positive(t, refused)
	require.Greater(t, tried, 1000)
}

// TestSlowHalfOpenStreams: neither is patience a way to more of them.
func TestSlowHalfOpenStreams(t *testing.T) {
	p := start(t, "PODLINK_SERVER_GRPC_MAX_STREAMS=100")
	n, _, _ := under(t, "idle streams, slow", p)
	n.requireWell(t, quiet)
	require.Less(t, p.Metric(t, "go_goroutines"), 8.0*100+500)
}

// requireSmall fails the test if podlink has far more than eight full connections of calls, or their memory.
func requireSmall(t *testing.T, p *podlinktest.Process) {
	t.Helper()
	require.Less(t, p.Metric(t, "go_goroutines"), 8.0*1000+2000)
	require.Less(t, p.Metric(t, "process_resident_memory_bytes"), 400.0*(1<<20))
}

func TestRapidReset(t *testing.T) {
	p := start(t)
	n, tried, _ := under(t, "rapid reset", p)
	n.requireWell(t, 100*time.Millisecond)
	require.Greater(t, tried, 10_000)
	requireSmall(t, p)
}

// TestFarDeadlines: no timer outlives a refused call, whose caller chose the deadline.
func TestFarDeadlines(t *testing.T) {
	p := start(t)
	n, _, _ := under(t, "far deadlines", p)
	n.requireWell(t, 100*time.Millisecond)
	requireSmall(t, p)
}

// TestConnectionFlood: the attacker's address has as many connections as it may, and the neighbour opens new ones all the time.
func TestConnectionFlood(t *testing.T) {
	p := start(t, "PODLINK_SERVER_MAX_CONNECTIONS_PER_PEER=200")
	n, tried, refused := under(t, "connections", p)
	n.requireWell(t, quiet)
	require.Greater(t, tried, 600)
	require.Positive(t, refused)
	require.Less(t, p.Metric(t, "process_open_fds"), 3.0*200+100)
	for _, listener := range []string{"grpc", "http", "admin"} {
		require.LessOrEqual(t, metric(t, p, "podlink_connections{", listener), 200.0+50)
		require.Positive(t, metric(t, p, "podlink_connections_refused_total", `limit="peer",listener="`+listener))
	}
}

func TestSlowHeaders(t *testing.T) {
	p := start(t)
	n, tried, _ := under(t, "slow headers", p)
	n.requireWell(t, quiet)
	require.Greater(t, tried, 1000)
}

func TestScrapeFlood(t *testing.T) {
	p := start(t)
	n, tried, _ := under(t, "scrapes", p)
	n.requireWell(t, quiet)
	require.Positive(t, tried)
}

func TestProfileFlood(t *testing.T) {
	p := start(t, "PODLINK_SERVER_ADMIN_PPROF=true")
	n, _, refused := under(t, "profiles", p)
	n.requireWell(t, quiet)
	require.Positive(t, refused)
}

// TestForcedTraces: callers decide for a bounded number of traces.
func TestForcedTraces(t *testing.T) {
	receiver := otlptest.Start(t)
	p := start(t, "PODLINK_TRACE_ENDPOINT="+receiver.Addr, "PODLINK_TRACE_SAMPLING_RATIO=0", "PODLINK_TRACE_MAX_FORCED=20")
	begin := time.Now()
	n, tried, _ := under(t, "forced traces", p)
	n.requireWell(t, quiet)
	require.Zero(t, p.Stop(t))
	most := 20 * (int(time.Since(begin).Seconds()) + 2)
	require.Greater(t, tried, most)
	traces := make(map[string]bool)
	for _, span := range receiver.All() {
		traces[span.TraceID] = true
	}
	t.Logf("%d traces, of at most %d", len(traces), most)
	require.NotEmpty(t, traces)
	require.LessOrEqual(t, len(traces), most)
}

// TestWebPages: nothing that a foreign page sends is served.
func TestWebPages(t *testing.T) {
	p := start(t)
	n, tried, refused := under(t, "requests by web pages", p)
	require.Equal(t, tried, refused)
	n.requireWell(t, quiet)
	require.Positive(t, metric(t, p, "server_requests_code_total", `reason="PERMISSION_DENIED"`))
	require.Positive(t, metric(t, p, "podlink_refusals_total", `by="host"`))
	require.Positive(t, metric(t, p, "podlink_refusals_total", `by="origin"`))
}

// TestWatchFlood: a caller without manners has as many watches as a caller may have, and neither takes the neighbour's places nor holds up
// its watch.
func TestWatchFlood(t *testing.T) {
	const most = 100
	p := start(t, "PODLINK_SERVER_MAX_WATCHES=200", "PODLINK_SERVER_MAX_WATCHED_SERVICES=102",
		fmt.Sprintf("PODLINK_SERVER_MAX_WATCHES_PER_CALLER=%d", most))
	before := watchAsNeighbour(t, p, "room")
	n, tried, _ := under(t, "watches", p)
	during := watchAsNeighbour(t, p, "another")
	n.requireWell(t, quiet)
	require.Greater(t, tried, 2*most)
	require.Positive(t, metric(t, p, "podlink_refusals_total", `by="watches"`))
	require.InDelta(t, most+2, p.Metric(t, "podlink_watchers"), 0, "all places of the attacker, and the neighbour's")
	for _, watch := range []*neighbourWatch{before, during} {
		watch.requireHealthy(t)
	}
	requireSmall(t, p)
}
