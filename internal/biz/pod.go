package biz

import "context"

// ServiceKey names a stateful service.
type ServiceKey struct {
	Namespace, Service string
}

func (k ServiceKey) validate() error {
	return firstError(validateName("namespace", k.Namespace), validateName("service", k.Service))
}

// Routing says which links a pod takes.
type Routing int32

const (
	// Ready takes new links.
	Ready Routing = iota
	// DenyNew keeps its links and takes no new ones: the pod drains.
	DenyNew
	// Shutdown takes nothing.
	Shutdown
)

// Report is what a pod says about itself.
type Report struct {
	Pod     PodID
	State   string
	Load    int32
	Routing Routing
	TTL     TTL // how long the report counts; Forever: it never ages
}

// Pod is a stored report.
type Pod struct {
	Report
	Live        bool
	HeartbeatMs int64 // when it reported, by the store's clock
}

// ReserveOutcome is what Reserve found.
type ReserveOutcome int

const (
	// LinkedPodUsable means that the link may stay on its pod; nothing was reserved.
	LinkedPodUsable ReserveOutcome = iota + 1
	// NeverReported means that no pod of the service has ever reported.
	NeverReported
	// NoPodAvailable means that no pod takes new links.
	NoPodAvailable
	// Reserved means that one more link is counted as given to Pod, the best one.
	Reserved
)

// Reservation is the answer to Reserve. Pod and HeartbeatMs are set for Reserved only; Release needs them.
type Reservation struct {
	Outcome     ReserveOutcome
	Pod         PodID
	HeartbeatMs int64 // of the report that counts the reservation
}

// PodRepo stores the reports of pods. The demands on mutations and reads are those of LinkRepo; age and liveness
// must be judged by the store's clock.
type PodRepo interface {
	// Set stores a report and resets the pod's count of links given out. Previous must be the report that was
	// replaced, nil for the first. Both must be set with *UnconfirmedError too.
	Set(ctx context.Context, key ServiceKey, report Report) (pod Pod, previous *Pod, err error)
	// List must return every pod that has reported, by pod.
	List(ctx context.Context, key ServiceKey) ([]Pod, error)
	// Get must return ErrPodNotFound for a pod that has never reported.
	Get(ctx context.Context, key ServiceKey, pod PodID) (Pod, error)
	// Remove forgets the pod's report; the service stays one that has reported. Previous must be nil without a report.
	Remove(ctx context.Context, key ServiceKey, pod PodID) (previous *Pod, err error)
	// Reserve judges the pod of a link (NoPod: there is none) and, if that can't be used, chooses the pod with the
	// lowest load + links given out since its last report, ties to the lowest pod, and counts a link as given to it.
	// It must be one step: concurrent reservations spread over the pods as if they had come one after the other.
	Reserve(ctx context.Context, key ServiceKey, linked PodID) (Reservation, error)
	// Release gives a reservation back, unless the pod has reported since.
	Release(ctx context.Context, key ServiceKey, reservation Reservation) error
}

// PodUsecase carries out the operations on pods.
type PodUsecase struct {
	pods *PodViews
	ttl  TTL
}

// NewPodUsecase returns the use-case on its repo; podTTL is how long a report counts that does not say so itself.
func NewPodUsecase(pods *PodViews, podTTL TTL) *PodUsecase {
	return &PodUsecase{pods: pods, ttl: podTTL}
}

// NewReport is a report as a caller sends it.
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

// List returns the pods that have reported, by pod; with liveOnly those whose report still counts.
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

// Remove forgets the pod's report and returns it, nil when there was none.
func (u *PodUsecase) Remove(ctx context.Context, key ServiceKey, pod *PodID) (*Pod, error) {
	if err := firstError(key.validate(), validatePod(pod)); err != nil {
		return nil, err
	}
	return u.pods.Remove(ctx, key, *pod)
}
