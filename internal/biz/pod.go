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

// Report is the heartbeat of a pod.
type Report struct {
	Pod     PodID
	State   string
	Load    int32
	Routing Routing
	TTL     TTL // how long the report is valid; Forever: it never expires
}

// Pod is a stored report.
type Pod struct {
	Report
	Live        bool
	HeartbeatMs int64 // time of the report by the store's clock
}

// ReserveOutcome is the outcome of Reserve.
type ReserveOutcome int

const (
	// LinkedPodUsable means that the pod of the link is usable; nothing was reserved.
	LinkedPodUsable ReserveOutcome = iota + 1
	// NeverReported means that no pod of the service has ever reported.
	NeverReported
	// NoPodAvailable means that no pod accepts new links.
	NoPodAvailable
	// Reserved means that a link was reserved on Pod, the best one.
	Reserved
)

// Reservation is the result of Reserve. Pod and HeartbeatMs are set for Reserved only; Release needs them.
type Reservation struct {
	Outcome     ReserveOutcome
	Pod         PodID
	HeartbeatMs int64 // of the report that counts the reservation
}

// PodRepo stores the reports of pods. Mutations and reads must satisfy the rules of LinkRepo. Age and liveness must be
// those by the store's clock.
type PodRepo interface {
	// Set stores a report and resets the pod's reservation count. previous must be the replaced report, nil for the
	// first. Both must also be set with *UnconfirmedError.
	Set(ctx context.Context, key ServiceKey, report Report) (pod Pod, previous *Pod, err error)
	// List must return every pod that has reported, sorted by pod.
	List(ctx context.Context, key ServiceKey) ([]Pod, error)
	// Get must return ErrPodNotFound for a pod that has never reported.
	Get(ctx context.Context, key ServiceKey, pod PodID) (Pod, error)
	// Remove deletes the pod's report. previous must be nil if there was none. Reserve must not return NeverReported for
	// the service afterwards.
	Remove(ctx context.Context, key ServiceKey, pod PodID) (previous *Pod, err error)
	// Reserve checks the pod of a link (NoPod: there is no link). If it is not usable, Reserve selects the pod with the
	// lowest load + reservations since its last report, ties to the lowest pod, and adds a reservation to it. It must be
	// one atomic step: concurrent reservations must spread over the pods like sequential ones.
	Reserve(ctx context.Context, key ServiceKey, linked PodID) (Reservation, error)
	// Release undoes a reservation, unless the pod has reported since.
	Release(ctx context.Context, key ServiceKey, reservation Reservation) error
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
	Pod     *PodID
	State   string
	Load    int32
	Routing Routing
	TTL     *TTL // nil: the configured default
}

// Set stores a report.
func (u *PodUsecase) Set(ctx context.Context, key ServiceKey, report NewReport) (Pod, *Pod, error) {
	ttl := u.ttl
	if report.TTL != nil {
		ttl = *report.TTL
	}
	err := firstError(
		key.validate(),
		validatePod(report.Pod),
		validateState(report.State),
		validateNotNegative("load", report.Load),
		validateRouting(report.Routing),
		validateTTL("ttl_seconds", ttl),
	)
	if err != nil {
		return Pod{}, nil, err
	}
	return u.pods.Set(ctx, key, Report{
		Pod: *report.Pod, State: report.State, Load: report.Load, Routing: report.Routing, TTL: ttl,
	})
}

func validateRouting(r Routing) error {
	if r < Ready || r > Shutdown {
		return &InvalidArgumentError{"routing", "must be READY, DENY_NEW or SHUTDOWN"}
	}
	return nil
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
		if pod.Live {
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
