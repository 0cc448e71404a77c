// Package doors has the metrics that podlink exports only with identities, TLS and an audit log configured.
package doors

import (
	"io"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"github.com/stretchr/testify/require"

	"podlink/internal/audit"
	"podlink/internal/server"
)

// Metrics returns the families of these metrics, with one file, one certificate and one issuer.
func Metrics(t testing.TB) []*dto.MetricFamily {
	t.Helper()
	audited, err := audit.New(audit.Options{Out: io.Discard})
	require.NoError(t, err)
	t.Cleanup(func() { _ = audited.Close(t.Context()) })
	m := server.NewDoorMetrics()
	m.InFlightFunc(func() int { return 0 })
	m.Watch(certificate{})
	m.WatchKeys(keySet{})
	registry := prometheus.NewRegistry()
	registry.MustRegister(m, audited)
	families, err := registry.Gather()
	require.NoError(t, err)
	return families
}

type certificate struct{}

func (certificate) Key() string         { return "server.grpc.tls.cert_file" }
func (certificate) Failing() bool       { return false }
func (certificate) Failures() uint64    { return 0 }
func (certificate) NotAfter() time.Time { return time.Now().Add(time.Hour) }

type keySet struct{}

func (keySet) Name() string      { return "corp" }
func (keySet) Loaded() time.Time { return time.Now() }
