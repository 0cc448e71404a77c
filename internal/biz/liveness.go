package biz

// Hearing is the time in which reports of a service arrived, and the basis of liveness: a pod is not dead because no pod could
// report. The store advances it with every stored report of the service. All values are in ms.
type Hearing struct {
	// Heard is the time in which the service was heard: the sum of the gaps between reports, each counted only up to half of
	// Least, and at least up to 0.5 s.
	Heard int64
	// Resumed is the value of Heard at which reports arrived after a longer gap.
	Resumed int64
	// Last is the time of the last report by the store's clock: Unix time.
	Last int64
	// Least is the smallest ttl reported lately, and LeastAt the value of Heard at that report.
	Least, LeastAt int64
}

// Liveness is whether a pod can be expected to serve its users.
type Liveness int

const (
	// Dead means that other pods were heard for long enough, and this one was not.
	Dead Liveness = iota
	// InDoubt means that it is silent, but perhaps because it could not report. It keeps its links and gets no new ones.
	InDoubt
	// Live means that the report has not expired.
	Live
)

// Liveness judges a pod by its last report: its ttl, the time of the report and the value of Heard then. nowMs is the store's
// clock. Whether the pod is Dead does not depend on nowMs.
func (h Hearing) Liveness(ttl TTL, reportMs, heardMs, nowMs int64) Liveness {
	if ttl == Forever {
		return Live
	}
	limit := int64(ttl) * 1000
	age := h.Heard - heardMs
	switch {
	case age <= limit && nowMs <= reportMs+limit:
		return Live
	case age > limit && (h.Resumed <= heardMs || h.Heard-h.Resumed > limit || age > 3*limit):
		return Dead
	default:
		return InDoubt
	}
}
