package server

import (
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	kerrors "github.com/go-kratos/kratos/v2/errors"
	"github.com/go-kratos/kratos/v2/log"
	"github.com/go-kratos/kratos/v2/transport"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"google.golang.org/grpc/tap"

	v1 "podlink/api/podlink/v1"
	"podlink/internal/conf"
)

// watched is a Reload without a certificate.
type watched struct {
	key      string
	failing  bool
	failures uint64
}

func (w watched) Key() string      { return w.key }
func (w watched) Failing() bool    { return w.failing }
func (w watched) Failures() uint64 { return w.failures }

// watchedCertificate is a Reload with one.
type watchedCertificate struct {
	watched
	notAfter time.Time
}

func (w watchedCertificate) NotAfter() time.Time { return w.notAfter }

type watchedKeys struct {
	name   string
	loaded time.Time
}

func (w watchedKeys) Name() string      { return w.name }
func (w watchedKeys) Loaded() time.Time { return w.loaded }

// TestDoorMetrics: each event is counted under its name, and what is watched is read at the scrape.
func TestDoorMetrics(t *testing.T) {
	m := NewDoorMetrics()
	m.Authenticated("jwt", "refused")
	m.Authenticated("a caller's choice", "ok")
	m.Refused(RefusedByPolicy)
	m.Insecure(true)
	c := m.Connections("http")
	c.Opened()
	c.Opened()
	c.Closed()
	c.Refused(LimitOfPeer)
	m.Connections("grpc").Opened()
	inFlight := 3
	m.InFlightFunc(func() int { return inFlight })
	m.Watch(watched{"auth.policy_file", true, 2})
	m.Watch(watchedCertificate{watched{key: "server.grpc.tls.cert_file"}, time.Unix(1_800_000_000, 0)},
		watchedCertificate{watched{key: "data.redis.tls.cert_file"}, time.Time{}})
	m.WatchKeys(watchedKeys{name: "new"})
	inFlight = 4
	const want = `
# HELP podlink_auth_insecure 1 when callers beyond loopback may do everything without proving who they are, else 0.
# TYPE podlink_auth_insecure gauge
podlink_auth_insecure 1
# HELP podlink_certificate_expiry_timestamp_seconds When the first certificate of a file ends, in seconds since 1970.
# TYPE podlink_certificate_expiry_timestamp_seconds gauge
podlink_certificate_expiry_timestamp_seconds{key="server.grpc.tls.cert_file"} 1.8e+09
# HELP podlink_connections Open connections of callers, by listener.
# TYPE podlink_connections gauge
podlink_connections{listener="admin"} 0
podlink_connections{listener="grpc"} 1
podlink_connections{listener="http"} 1
# HELP podlink_connections_refused_total Connections that were closed at once, by listener and by the limit that was reached.
# TYPE podlink_connections_refused_total counter
podlink_connections_refused_total{limit="all",listener="admin"} 0
podlink_connections_refused_total{limit="all",listener="grpc"} 0
podlink_connections_refused_total{limit="all",listener="http"} 0
podlink_connections_refused_total{limit="peer",listener="admin"} 0
podlink_connections_refused_total{limit="peer",listener="grpc"} 0
podlink_connections_refused_total{limit="peer",listener="http"} 1
# HELP podlink_jwks_age_seconds Age of an issuer's keys; +Inf: they were never read.
# TYPE podlink_jwks_age_seconds gauge
podlink_jwks_age_seconds{issuer="new"} +Inf
# HELP podlink_reload_failing 1 when the content of a file was refused and the one before is in use, else 0.
# TYPE podlink_reload_failing gauge
podlink_reload_failing{key="auth.policy_file"} 1
podlink_reload_failing{key="data.redis.tls.cert_file"} 0
podlink_reload_failing{key="server.grpc.tls.cert_file"} 0
# HELP podlink_reload_failures_total Attempts to read a file whose content was refused.
# TYPE podlink_reload_failures_total counter
podlink_reload_failures_total{key="auth.policy_file"} 2
podlink_reload_failures_total{key="data.redis.tls.cert_file"} 0
podlink_reload_failures_total{key="server.grpc.tls.cert_file"} 0
# HELP podlink_requests_in_flight Calls that are being served.
# TYPE podlink_requests_in_flight gauge
podlink_requests_in_flight 4
`
	require.NoError(t, testutil.CollectAndCompare(m, strings.NewReader(want),
		"podlink_auth_insecure", "podlink_certificate_expiry_timestamp_seconds", "podlink_connections",
		"podlink_connections_refused_total", "podlink_jwks_age_seconds", "podlink_reload_failing", "podlink_reload_failures_total",
		"podlink_requests_in_flight"))
	require.Equal(t, 12, testutil.CollectAndCount(m, "podlink_authentications_total"))
	require.InDelta(t, 1, testutil.ToFloat64(m.authentications[authOutcome{"jwt", "refused"}]), 0)
	require.Equal(t, 9, testutil.CollectAndCount(m, "podlink_refusals_total"))
	require.InDelta(t, 1, testutil.ToFloat64(m.refusals[RefusedByPolicy]), 0)

	m.Insecure(false)
	require.InDelta(t, 0, testutil.ToFloat64(m.insecure), 0)
	problems, err := testutil.CollectAndLint(m)
	require.NoError(t, err)
	require.Empty(t, problems)
}

// TestDoorsCountWhatTheyRefuse: each part that refuses calls or connections counts under its own name.
func TestDoorsCountWhatTheyRefuse(t *testing.T) {
	m := NewDoorMetrics()
	count := func(by RefusedBy) float64 { return testutil.ToFloat64(m.refusals[by]) }

	origin := newOwnOrigin("server.http.hosts", "127.0.0.1:8000", nil, m)
	foreign := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/", http.NoBody)
	require.Error(t, origin.check(foreign))
	foreign.Host = "localhost"
	foreign.Header.Set("Sec-Fetch-Site", "cross-site")
	require.Error(t, origin.check(foreign))
	foreign.Header.Set("Sec-Fetch-Site", "same-origin")
	require.NoError(t, origin.check(foreign))

	_, err := newCallGuard(1, m).tap(t.Context(), &tap.Info{FullMethodName: "/podlink.v1.LinkService/Absent"})
	require.Error(t, err)

	metrics, err := NewMetrics(nil)
	require.NoError(t, err)
	chain, closeChain := NewChain(ChainOptions{
		Server: &conf.Server{}, Log: conf.Default().Log, Tracer: sdktrace.NewTracerProvider(), Metrics: metrics, Doors: m,
		Logger: log.NewStdLogger(io.Discard),
	})
	defer closeChain()
	_, err = chain.Unary(nil)(transport.NewServerContext(t.Context(), call{reply: http.Header{}}), nil)
	require.Equal(t, v1.ErrorReason_RATE_LIMITED.String(), kerrors.FromError(err).Reason)
	for by, want := range map[RefusedBy]float64{
		RefusedByHost: 1, RefusedByOrigin: 1, RefusedByMethod: 1, RefusedByInFlight: 1, RefusedByPeer: 0, RefusedByPolicy: 0,
	} {
		require.InDelta(t, want, count(by), 0, by)
	}

	listener, err := NewConnections(&conf.Server{MaxConnections: 2, MaxConnectionsPerPeer: 1}, m).Listen(t.Context(), "grpc", "127.0.0.1:0")
	require.NoError(t, err)
	accepted := make(chan net.Conn, 2)
	go func() {
		defer close(accepted)
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			accepted <- conn
		}
	}()
	for range 2 {
		if conn, err := new(net.Dialer).DialContext(t.Context(), "tcp", listener.Addr().String()); err == nil {
			defer conn.Close()
		}
	}
	first := <-accepted
	require.Eventually(t, func() bool {
		return testutil.ToFloat64(m.unconnected.WithLabelValues("grpc", LimitOfPeer)) == 1
	}, 10*time.Second, time.Millisecond)
	require.InDelta(t, 1, testutil.ToFloat64(m.connections.WithLabelValues("grpc")), 0)
	require.NoError(t, first.Close())
	require.InDelta(t, 0, testutil.ToFloat64(m.connections.WithLabelValues("grpc")), 0)
	require.NoError(t, listener.Close())
	<-accepted
}

// TestNoDoorMetrics: parts that are tested alone count nowhere.
func TestNoDoorMetrics(*testing.T) {
	var m *DoorMetrics
	m.Authenticated("jwt", "ok")
	m.Refused(RefusedByHost)
	m.Insecure(true)
	m.InFlightFunc(nil)
	m.Watch(watched{})
	m.WatchKeys(watchedKeys{})
	c := m.Connections("http")
	c.Opened()
	c.Closed()
	c.Refused(LimitOfAll)
}
