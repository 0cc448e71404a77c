package server

import (
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"
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
	http := m.Connections("http")
	http.Opened()
	http.Opened()
	http.Closed()
	http.Refused(LimitOfPeer)
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
# HELP podlink_reload_failures_total Contents of a file that were refused.
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
	require.Equal(t, 8, testutil.CollectAndCount(m, "podlink_refusals_total"))
	require.InDelta(t, 1, testutil.ToFloat64(m.refusals[RefusedByPolicy]), 0)

	m.Insecure(false)
	require.InDelta(t, 0, testutil.ToFloat64(m.insecure), 0)
	problems, err := testutil.CollectAndLint(m)
	require.NoError(t, err)
	require.Empty(t, problems)
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
