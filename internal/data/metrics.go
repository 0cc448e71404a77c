package data

import (
	"strings"

	"github.com/prometheus/client_golang/prometheus"

	"podlink/internal/biz"
	"podlink/internal/rdb"
)

// LinkMetrics counts the outcomes of calls for links. It is a prometheus.Collector. No label value comes from a caller.
type LinkMetrics struct{ *prometheus.CounterVec }

// NewLinkMetrics returns the metrics of a LinkRepo.
func NewLinkMetrics() *LinkMetrics {
	return &LinkMetrics{prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "podlink_links_total",
		Help: "Calls that may change a link, and reads of links that had expired, by script and outcome for the link.",
	}, []string{"command", "outcome"})}
}

// count records the reply of a mutation.
func (m *LinkMetrics) count(script *rdb.Script, reply rdb.Reply, change biz.LinkChange) {
	m.WithLabelValues(script.Name, linkOutcome(reply.Status(), change)).Inc()
}

// countRead records a read that found an expired link.
func (m *LinkMetrics) countRead(script *rdb.Script, reply rdb.Reply) {
	if reply.Status() == "EXPIRED" {
		m.WithLabelValues(script.Name, "expired").Inc()
	}
}

// linkOutcome returns the value of the outcome label.
func linkOutcome(status string, change biz.LinkChange) string {
	switch {
	case status != "LINKED" && status != "REMOVED": // Including KEPT.
		return strings.ToLower(status)
	case !change.Link.Exists():
		return "removed"
	case change.Previous == biz.NoPod:
		return "created"
	case change.Previous != change.Link.Pod:
		return "moved"
	default:
		return "kept"
	}
}
