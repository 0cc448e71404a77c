package server

import (
	"math"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// DoorMetrics are the metrics of who comes in: authentications, refusals, connections, and the files that decide about them. It
// is a prometheus.Collector. No label is a caller's choice: identities are in the audit log. The counting methods of a nil
// *DoorMetrics do nothing, for tests of parts.
type DoorMetrics struct {
	authentications map[authOutcome]prometheus.Counter // looked up once; read only
	refusals        map[RefusedBy]prometheus.Counter
	connections     *prometheus.GaugeVec
	unconnected     *prometheus.CounterVec
	insecure        prometheus.Gauge
	inFlight        atomic.Pointer[func() int]
	counters        []prometheus.Collector

	mu      sync.Mutex
	reloads []Reload
	keySets []KeySet
}

// RefusedBy is what refused a call.
type RefusedBy string

// What refuses calls, from the outside in.
const (
	RefusedByHost           RefusedBy = "host"           // the Host is not one of server.*.hosts
	RefusedByOrigin         RefusedBy = "origin"         // a browser sent it from another site
	RefusedByMethod         RefusedBy = "method"         // gRPC: no such method
	RefusedByPeer           RefusedBy = "peer"           // gRPC: too many calls from the peer's address
	RefusedByInFlight       RefusedBy = "in_flight"      // server.max_in_flight
	RefusedByAuthentication RefusedBy = "authentication" // 401
	RefusedByRate           RefusedBy = "rate"           // auth.rate
	RefusedByPolicy         RefusedBy = "policy"         // 403
	RefusedByWatches        RefusedBy = "watches"        // server.max_watches_per_caller
)

// authOutcome is a kind of proof, and what came of it.
type authOutcome struct{ kind, outcome string }

// Reload is a file, or a pair of files, that is read again when its content changes.
type Reload interface {
	Key() string      // its path in the configuration
	Failing() bool    // the last content was refused, and the one before is in use
	Failures() uint64 // contents that were refused
}

// expiring is a Reload that has a certificate.
type expiring interface {
	NotAfter() time.Time // when the first certificate ends; zero: there is none
}

// KeySet is the keys of an issuer of tokens.
type KeySet interface {
	Name() string      // the issuer's, in the configuration
	Loaded() time.Time // when they were last read; zero: never
}

// The descriptions of what is read at each scrape.
var (
	inFlightDesc = prometheus.NewDesc("podlink_requests_in_flight", "Calls that are being served.", nil, nil)
	failingDesc  = prometheus.NewDesc("podlink_reload_failing",
		"1 when the content of a file was refused and the one before is in use, else 0.", []string{"key"}, nil)
	failuresDesc = prometheus.NewDesc("podlink_reload_failures_total",
		"Attempts to read a file whose content was refused.", []string{"key"}, nil)
	expiryDesc = prometheus.NewDesc("podlink_certificate_expiry_timestamp_seconds",
		"When the first certificate of a file ends, in seconds since 1970.", []string{"key"}, nil)
	keysAgeDesc = prometheus.NewDesc("podlink_jwks_age_seconds",
		"Age of an issuer's keys; +Inf: they were never read.", []string{"issuer"}, nil)
)

// NewDoorMetrics returns the metrics of the doors.
func NewDoorMetrics() *DoorMetrics {
	authentications := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "podlink_authentications_total",
		Help: "Authentications of calls, by the kind of proof and by outcome.",
	}, []string{"kind", "outcome"})
	refusals := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "podlink_refusals_total",
		Help: "Calls that were refused for what their caller may do, or does too often, by what refused them.",
	}, []string{"by"})
	m := &DoorMetrics{
		authentications: make(map[authOutcome]prometheus.Counter),
		refusals:        make(map[RefusedBy]prometheus.Counter),
		connections: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "podlink_connections",
			Help: "Open connections of callers, by listener.",
		}, []string{"listener"}),
		unconnected: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "podlink_connections_refused_total",
			Help: "Connections that were closed at once, by listener and by the limit that was reached.",
		}, []string{"listener", "limit"}),
		insecure: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "podlink_auth_insecure",
			Help: "1 when callers beyond loopback may do everything without proving who they are, else 0.",
		}),
	}
	// Pre-create the series: rate() misses the first increment of a new one.
	for _, kind := range []string{"jwt", "mtls", "token", "none"} {
		for _, outcome := range []string{"ok", "refused", "undecided"} {
			m.authentications[authOutcome{kind, outcome}] = authentications.WithLabelValues(kind, outcome)
		}
	}
	for _, by := range []RefusedBy{
		RefusedByHost, RefusedByOrigin, RefusedByMethod, RefusedByPeer, RefusedByInFlight, RefusedByAuthentication, RefusedByRate,
		RefusedByPolicy, RefusedByWatches,
	} {
		m.refusals[by] = refusals.WithLabelValues(string(by))
	}
	for _, listener := range []string{"http", "grpc", "admin"} {
		m.Connections(listener)
	}
	m.counters = []prometheus.Collector{authentications, refusals, m.connections, m.unconnected, m.insecure}
	return m
}

// Authenticated counts an authentication. kind is jwt, mtls, token, or none without a proof; outcome is ok, refused, or undecided
// where no keys were ever read.
func (m *DoorMetrics) Authenticated(kind, outcome string) {
	if m == nil {
		return
	}
	if counter := m.authentications[authOutcome{kind, outcome}]; counter != nil {
		counter.Inc()
	}
}

// Refused counts a refused call.
func (m *DoorMetrics) Refused(by RefusedBy) {
	if m != nil {
		m.refusals[by].Inc()
	}
}

// Insecure says whether callers beyond loopback may do everything.
func (m *DoorMetrics) Insecure(insecure bool) {
	if m == nil {
		return
	}
	m.insecure.Set(0)
	if insecure {
		m.insecure.Set(1)
	}
}

// ConnCounter counts the connections of a listener. The zero value counts nothing.
type ConnCounter struct {
	open    prometheus.Gauge
	refused map[string]prometheus.Counter // by limit; read only
}

// Connections returns the counter of a listener: http, grpc or admin.
func (m *DoorMetrics) Connections(listener string) ConnCounter {
	if m == nil {
		return ConnCounter{}
	}
	return ConnCounter{m.connections.WithLabelValues(listener), map[string]prometheus.Counter{
		LimitOfAll:  m.unconnected.WithLabelValues(listener, LimitOfAll),
		LimitOfPeer: m.unconnected.WithLabelValues(listener, LimitOfPeer),
	}}
}

// The limits of connections.
const (
	LimitOfAll  = "all"  // server.max_connections
	LimitOfPeer = "peer" // server.max_connections_per_peer
)

// Opened counts an accepted connection.
func (c ConnCounter) Opened() {
	if c.open != nil {
		c.open.Inc()
	}
}

// Closed counts the end of an accepted connection.
func (c ConnCounter) Closed() {
	if c.open != nil {
		c.open.Dec()
	}
}

// Refused counts a connection that was closed at once, because of a limit.
func (c ConnCounter) Refused(limit string) {
	if counter := c.refused[limit]; counter != nil {
		counter.Inc()
	}
}

// InFlightFunc sets what returns the number of calls that are being served.
func (m *DoorMetrics) InFlightFunc(count func() int) {
	if m != nil {
		m.inFlight.Store(&count)
	}
}

// Watch adds files whose state is read at each scrape.
func (m *DoorMetrics) Watch(reloads ...Reload) {
	if m == nil {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.reloads = append(m.reloads, reloads...)
}

// WatchKeys adds keys whose age is read at each scrape.
func (m *DoorMetrics) WatchKeys(sets ...KeySet) {
	if m == nil {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.keySets = append(m.keySets, sets...)
}

// Describe implements prometheus.Collector.
func (m *DoorMetrics) Describe(descriptions chan<- *prometheus.Desc) {
	for _, collector := range m.counters {
		collector.Describe(descriptions)
	}
	for _, desc := range []*prometheus.Desc{inFlightDesc, failingDesc, failuresDesc, expiryDesc, keysAgeDesc} {
		descriptions <- desc
	}
}

// Collect implements prometheus.Collector.
func (m *DoorMetrics) Collect(metrics chan<- prometheus.Metric) {
	for _, collector := range m.counters {
		collector.Collect(metrics)
	}
	gauge := func(desc *prometheus.Desc, value float64, labels ...string) {
		metrics <- prometheus.MustNewConstMetric(desc, prometheus.GaugeValue, value, labels...)
	}
	if count := m.inFlight.Load(); count != nil {
		gauge(inFlightDesc, float64((*count)()))
	}
	m.mu.Lock()
	reloads, keySets := m.reloads, m.keySets
	m.mu.Unlock()
	for _, file := range reloads {
		failing := 0.0
		if file.Failing() {
			failing = 1
		}
		gauge(failingDesc, failing, file.Key())
		metrics <- prometheus.MustNewConstMetric(failuresDesc, prometheus.CounterValue, float64(file.Failures()), file.Key())
		if certificate, ok := file.(expiring); ok && !certificate.NotAfter().IsZero() {
			gauge(expiryDesc, float64(certificate.NotAfter().Unix()), file.Key())
		}
	}
	for _, keys := range keySets {
		age := math.Inf(1)
		if at := keys.Loaded(); !at.IsZero() {
			age = time.Since(at).Seconds()
		}
		gauge(keysAgeDesc, age, keys.Name())
	}
}
