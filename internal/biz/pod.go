package biz

import "context"

// ServiceKey identifies a stateful service.
type ServiceKey struct {
	Namespace, Service string
}

func (k ServiceKey) validate() error {
	return firstError(validateName("namespace", k.Namespace), validateName("service", k.Service))
}

// Routing is which links a pod accepts.
type Routing int32

const (
	// Ready accepts new links.
	Ready Routing = iota
	// DenyNew keeps existing links and accepts no new ones: the pod drains.
	DenyNew
	// Shutdown accepts no links, and existing ones are moved by the next compute.
	Shutdown
)

// Generation is the fencing token of a pod: every process of it gets a greater one. 0: no process with an instance has reported.
type Generation int64

// NoCapacity is the capacity of a pod that limits its links itself.
const NoCapacity int32 = -1

// Report is the heartbeat of a pod.
type Report struct {
	Pod      PodID
	State    string
	Load     int32
	Routing  Routing
	TTL      TTL               // how long the report is valid; Forever: it never expires
	Capacity int32             // burden at which the pod takes no new links; NoCapacity: none
	Labels   map[string]string // nil: none
	Address  string            // host:port; empty: none

	Instance   string     // the process; empty: a client that names none, and the three fields below are 0
	Sequence   int64      // number of the process' report
	Generation Generation // that the store gave the process; 0: its first report
	Supersedes Generation // with Generation 0: that of the replaced process
}

// Pod is a stored report. Its Generation is the stored one; Supersedes is 0.
type Pod struct {
	Report
	Cordon        Routing // set by an operator; Ready: none
	CordonUntilMs int64   // when the cordon lifts itself, by the store's clock; 0: never
	Given         int64   // reservations since the report; halved every minute for a report that never expires
	Liveness      Liveness
	HeartbeatMs   int64 // time of the report by the store's clock
	HeardMs       int64 // Hearing.Heard at the report
}

// Effective returns the routing that applies: the stricter of the reported one and the cordon.
func (p Pod) Effective() Routing { return max(p.Routing, p.Cordon) }

// PodsView is a plain read of a service's pods, without those that are dead for certain (silent for more than three ttl in
// which the service was heard).
type PodsView struct {
	Pods    []Pod // sorted by pod; the Liveness is not set, Judge does that
	Hearing Hearing
}

// Judge sets the liveness of the pods, and lifts lapsed cordons, by the store's clock.
func (v *PodsView) Judge(nowMs int64) {
	for i := range v.Pods {
		pod := &v.Pods[i]
		pod.Liveness = v.Hearing.Liveness(pod.TTL, pod.HeartbeatMs, pod.HeardMs, nowMs)
		if pod.CordonUntilMs != 0 && nowMs >= pod.CordonUntilMs {
			pod.Cordon, pod.CordonUntilMs = Ready, 0
		}
	}
}

// ReportResult is the result of a report.
type ReportResult struct {
	Applied  bool   // false: a late, doubled or plain report that changed nothing
	Pod      Pod    // the stored report after the call
	Previous *Pod   // the stored report before the call; nil: none
	StoreID  string // changes when the store may have lost links or pods
}

// ReserveRequest says for which link a pod is reserved.
type ReserveRequest struct {
	Linked    PodID             // pod of the current link; NoPod: there is none
	Leave     bool              // Linked is usable, but to be left if another pod is usable
	DoubtOver bool              // a Linked pod in doubt counts as dead if a live READY pod of the service never expires
	Avoid     []PodID           // pods that are not for a new link
	Selector  map[string]string // labels that the pod must have
	Known     *KnownLink        // used only if the store has lost data recently, and there is no link or it is to the same pod
}

// KnownLink is a link that the caller used until now.
type KnownLink struct {
	Pod   PodID
	Epoch Epoch
}

// ReserveOutcome is the outcome of Reserve.
type ReserveOutcome int

const (
	// LinkedPodUsable means that the link stays: its pod is usable, or in doubt while no other pod is usable; nothing was
	// reserved.
	LinkedPodUsable ReserveOutcome = iota + 1
	// NeverReported means that no pod of the service has ever reported.
	NeverReported
	// NoPodAvailable means that no pod accepts new links.
	NoPodAvailable
	// Reserved means that a link was reserved on Pod, the best one.
	Reserved
	// Restored means that the link is to be put back to the known pod, with an epoch above the known one.
	Restored
)

// Reservation is the result of Reserve. Pod and HeartbeatMs are set for Reserved and Restored only; Release needs them.
type Reservation struct {
	Outcome     ReserveOutcome
	Pod         PodID
	HeartbeatMs int64 // of the report that counts the reservation; 0: nothing was counted
}

// PodRepo stores the reports of pods. Mutations and reads must satisfy the rules of LinkRepo. Age and liveness must be
// those by the store's clock and the time in which the service was heard (Hearing).
type PodRepo interface {
	// Set stores a report and resets the pod's reservation count. It must return *SupersededError for a process that was
	// replaced, *LimitError for a new pod of a service that has too many, and both must change nothing. The result must also
	// be set with *UnconfirmedError.
	Set(ctx context.Context, key ServiceKey, report Report) (ReportResult, error)
	// List must return every pod that has reported and was not forgotten, sorted by pod.
	List(ctx context.Context, key ServiceKey) ([]Pod, error)
	// View must read the pods by a plain command, not by a script.
	View(ctx context.Context, key ServiceKey) (PodsView, error)
	// Get must return ErrPodNotFound for a pod that has never reported.
	Get(ctx context.Context, key ServiceKey, pod PodID) (Pod, error)
	// Cordon sets the cordon, for the ttl; Ready lifts it. It must return ErrPodNotFound for a pod that has never reported. The
	// pod must also be set with *UnconfirmedError.
	Cordon(ctx context.Context, key ServiceKey, pod PodID, cordon Routing, ttl TTL) (Pod, error)
	// Remove deletes the pod's report and cordon, and keeps its generation. previous must be nil if there was no report.
	// Reserve must not return NeverReported for the service afterwards.
	Remove(ctx context.Context, key ServiceKey, pod PodID) (previous *Pod, err error)
	// Reserve checks the pod of a link. If it is not usable, Reserve selects, among the live READY pods below their capacity,
	// the one with the lowest load + reservations since its last report, ties to the lowest pod, and adds a reservation to
	// it. It must be one atomic step: concurrent reservations must spread over the pods like sequential ones. Its cost must
	// not grow with the number of pods.
	Reserve(ctx context.Context, key ServiceKey, request ReserveRequest) (Reservation, error)
	// Release undoes a reservation, unless the pod has reported since.
	Release(ctx context.Context, key ServiceKey, reservation Reservation) error
	// BatchReserve must reserve as if Reserve was called for each request, one after the other, and return the results in the same
	// order. All requests have the same Selector. It may take several atomic steps, and their number must be small beside that of
	// the requests; if one fails, its requests and those after it have the error.
	BatchReserve(ctx context.Context, key ServiceKey, requests []ReserveRequest) []ReserveResult
	// BatchRelease is Release for each of the reservations.
	BatchRelease(ctx context.Context, key ServiceKey, reservations []Reservation) error
}

// ReserveResult is a reservation of a batch, or why there is none.
type ReserveResult struct {
	Reservation
	Err error
}

// PodUsecase implements the operations on pods: it validates their arguments and calls the repo.
type PodUsecase struct {
	pods *PodViews
	ttl  TTL
}

// NewPodUsecase returns the use-case on the repo. podTTL is the TTL of a report that sets none.
func NewPodUsecase(pods *PodViews, podTTL TTL) *PodUsecase {
	return &PodUsecase{pods: pods, ttl: podTTL}
}

// NewReport is an unvalidated report from a caller.
type NewReport struct {
	Pod      *PodID
	State    string
	Load     int32
	Routing  Routing
	TTL      *TTL   // nil: the configured default
	Capacity *int32 // nil: none
	Labels   map[string]string
	Address  string

	Instance   string
	Sequence   int64
	Generation Generation
	Supersedes Generation
}

// Set stores a report.
func (u *PodUsecase) Set(ctx context.Context, key ServiceKey, report NewReport) (ReportResult, error) {
	ttl, capacity := u.ttl, NoCapacity
	if report.TTL != nil {
		ttl = *report.TTL
	}
	if report.Capacity != nil {
		capacity = *report.Capacity
	}
	err := firstError(
		key.validate(),
		validatePod(report.Pod),
		validateState(report.State),
		validateNotNegative("load", report.Load),
		validateRouting("routing", report.Routing),
		validateTTL("ttl_seconds", ttl),
		validateInstance(report.Instance),
		validateCounter("sequence", report.Sequence, report.Instance),
		validateCounter("generation", report.Generation, report.Instance),
		validateCounter("supersedes", report.Supersedes, report.Instance),
		validateLabels("labels", report.Labels, maxLabels),
		validateAddress(report.Address),
	)
	if report.Capacity != nil {
		err = firstError(err, validateNotNegative("capacity", capacity))
	}
	if err != nil {
		return ReportResult{}, err
	}
	return u.pods.Set(ctx, key, Report{
		Pod: *report.Pod, State: report.State, Load: report.Load, Routing: report.Routing, TTL: ttl,
		Capacity: capacity, Labels: report.Labels, Address: report.Address,
		Instance: report.Instance, Sequence: report.Sequence, Generation: report.Generation, Supersedes: report.Supersedes,
	})
}

// Cordon sets the pod's cordon and returns the pod, or ErrPodNotFound. Ready lifts the cordon, and with a ttl it lifts itself.
func (u *PodUsecase) Cordon(ctx context.Context, key ServiceKey, pod *PodID, cordon *Routing, ttl *TTL) (Pod, error) {
	if err := firstError(key.validate(), validatePod(pod), validateCordonTTL(ttl)); err != nil {
		return Pod{}, err
	}
	if cordon == nil {
		return Pod{}, &InvalidArgumentError{"cordon", "is required"}
	}
	if err := validateRouting("cordon", *cordon); err != nil {
		return Pod{}, err
	}
	lasts := Forever
	if ttl != nil && *cordon != Ready {
		lasts = *ttl
	}
	return u.pods.Cordon(ctx, key, *pod, *cordon, lasts)
}

// List returns the pods that have reported, sorted by pod; with liveOnly only the live ones.
func (u *PodUsecase) List(ctx context.Context, key ServiceKey, liveOnly bool) ([]Pod, error) {
	if err := key.validate(); err != nil {
		return nil, err
	}
	pods, err := u.pods.List(ctx, key)
	if err != nil || !liveOnly {
		return pods, err
	}
	live := pods[:0]
	for _, pod := range pods {
		if pod.Liveness == Live {
			live = append(live, pod)
		}
	}
	return live, nil
}

// Get returns one pod, or ErrPodNotFound.
func (u *PodUsecase) Get(ctx context.Context, key ServiceKey, pod *PodID) (Pod, error) {
	if err := firstError(key.validate(), validatePod(pod)); err != nil {
		return Pod{}, err
	}
	return u.pods.Get(ctx, key, *pod)
}

// Remove deletes the pod's report and returns it, nil if there was none.
func (u *PodUsecase) Remove(ctx context.Context, key ServiceKey, pod *PodID) (*Pod, error) {
	if err := firstError(key.validate(), validatePod(pod)); err != nil {
		return nil, err
	}
	return u.pods.Remove(ctx, key, *pod)
}
