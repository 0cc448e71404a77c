package biz

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"
)

// Outcome is the result of Compute.
type Outcome int

const (
	// Existing means that the current link was kept: its pod is usable, or in doubt while no other pod is usable, or no pod of
	// the service has ever reported.
	Existing Outcome = iota + 1
	// Created means that there was no link.
	Created
	// Relinked means that the pod of the current link was not usable, or was to be avoided.
	Relinked
)

const (
	// maxComputeAttempts is the number of attempts of Compute while other callers change the link.
	maxComputeAttempts = 8
	// releaseTimeout bounds the release of a reservation, which is sent even if the caller has left.
	releaseTimeout = time.Second
	// describeTimeout bounds the wait for the pod of a link that was just made.
	describeTimeout = 500 * time.Millisecond
)

// ErrContended is the ErrStoreUnavailable of a compute whose link changed during each of its attempts.
var ErrContended = fmt.Errorf("%w: the link changed %d times while it was computed", ErrStoreUnavailable, maxComputeAttempts)

// ComputeRequest is how to compute a link. It is unvalidated.
type ComputeRequest struct {
	TTL        TTL               // of a link that the call makes
	Avoid      []PodID           // pods that are not for a new link
	AvoidEpoch Epoch             // a temporary link with this epoch to a pod of Avoid is moved if another pod is usable; 0: none
	Selector   map[string]string // labels that the pod of a new link must have
	Known      *NewKnown         // the link that the caller used until now; nil: none
}

// NewKnown is an unvalidated KnownLink.
type NewKnown struct {
	Pod   *PodID
	Epoch Epoch
}

// validateShared checks what all items of a batch share.
func (r *ComputeRequest) validateShared() error {
	return firstError(validateTTL("persist_seconds", r.TTL), validateLabels("selector", r.Selector, maxSelector))
}

// validateOwn checks what each item of a batch has.
func (r *ComputeRequest) validateOwn() error {
	if r.Known != nil {
		if err := validatePodOf("known.pod_id", r.Known.Pod); err != nil {
			return err
		}
		if r.Known.Epoch < 1 {
			return &InvalidArgumentError{"known.epoch", fmt.Sprintf("must be 1 to %d", int64(math.MaxInt64))}
		}
	}
	return firstError(validateAvoid(r.Avoid), validateEpoch("avoid_epoch", r.AvoidEpoch))
}

// leaves reports whether the caller could not use the link, and the link may move: its session does not live in the pod, and
// it has not been moved since.
func (r *ComputeRequest) leaves(link Link) bool {
	return r.AvoidEpoch != 0 && link.Epoch == r.AvoidEpoch && !link.Persistent() && slices.Contains(r.Avoid, link.Pod)
}

// Computed is the result of Compute.
type Computed struct {
	Outcome Outcome
	LinkChange
	Pod *SharedPod // the link's pod, at most about a second old; nil: not known
}

// Compute returns the current link if its pod is usable, and otherwise links the key to the best pod.
//
// The link and the pods of a service are different keys of the store, and no atomic step spans two keys. So Compute first
// reads the link, and returns it if the cached view of the pods says that its pod is usable. Otherwise one step on the
// pods checks the link's pod and reserves the best one if it is not usable, and a compare-and-set on the link's epoch
// links the key to the reserved pod. If the link has changed in between, Compute releases the reservation and tries again
// with the new link. So concurrent computes of one key end on one pod.
func (u *LinkUsecase) Compute(ctx context.Context, key LinkKey, request ComputeRequest) (computed Computed, err error) {
	if err := firstError(key.validate(), request.validateShared(), request.validateOwn()); err != nil {
		return Computed{}, err
	}
	attempts := 0
	ctx = u.observer.ComputeStarted(ctx, key.service())
	defer func() { u.observer.ComputeEnded(ctx, ComputeResult{computed.Outcome, attempts, err}) }()

	link, err := u.links.Get(ctx, key)
	if err != nil {
		return Computed{}, notExecuted(err)
	}
	for {
		var entry podEntry
		if link.Exists() {
			entry = u.pods.find(ctx, key.service(), link.Pod)
			if attempts == 0 && entry.usable() && !request.leaves(link) {
				return existing(link, entry), nil
			}
		}
		if attempts == maxComputeAttempts {
			return Computed{}, ErrContended
		}
		attempts++
		computed, err = u.reserveAndLink(ctx, key, &request, link, entry)
		if computed.Outcome != 0 || err != nil {
			return computed, err
		}
		link = computed.Link
	}
}

func existing(link Link, entry podEntry) Computed {
	return Computed{Existing, LinkChange{Previous: link.Pod, Link: link}, entry.pod}
}

// reserveAndLink is one attempt of Compute, for the link that was read and its pod in the view. If it returns neither an
// outcome nor an error, another caller has changed the link, and the result has the new one.
func (u *LinkUsecase) reserveAndLink(
	ctx context.Context, key LinkKey, request *ComputeRequest, link Link, entry podEntry,
) (Computed, error) {
	service, wanted := key.service(), request.wants(link, entry)
	reservation, err := u.pods.Reserve(ctx, service, wanted)
	if err != nil {
		return Computed{}, notExecuted(err)
	}
	move, stays, err := wanted.decide(service, link, reservation)
	if stays || err != nil {
		return unlessFailed(existing(link, entry), err)
	}
	u.pods.prefetch(ctx, service) // Its pod is described by the view, which is read meanwhile if need be.
	change, err := u.links.SetIfEpoch(ctx, key, reservation.Pod, request.TTL, move)
	outcome, unused, err := linked(change, err)
	if unused {
		u.release(ctx, service, reservation)
	}
	if outcome == 0 || err != nil {
		return unlessFailed(Computed{LinkChange: change}, err)
	}
	return Computed{outcome, change, u.describe(ctx, service, reservation)}, nil
}

func unlessFailed(computed Computed, err error) (Computed, error) {
	if err != nil {
		return Computed{}, err
	}
	return computed, nil
}

// wants returns what is asked of the pods, for the link that was read and its pod in the view.
func (r *ComputeRequest) wants(link Link, entry podEntry) ReserveRequest {
	wanted := ReserveRequest{
		Linked: link.Pod, Leave: r.leaves(link), DoubtOver: entry.doubtOver, Avoid: r.Avoid, Selector: r.Selector,
	}
	if known := r.Known; known != nil && (!link.Exists() || link.Pod == *known.Pod) {
		wanted.Known = &KnownLink{*known.Pod, known.Epoch}
	}
	return wanted
}

// decide returns whether the reservation leaves the link that was read as it is, and otherwise the terms of the step that links.
func (r *ReserveRequest) decide(service ServiceKey, link Link, reservation Reservation) (move MoveTerms, stays bool, err error) {
	// A link that was temporary when it was read may have become persistent since, with the same epoch.
	move = MoveTerms{Epoch: link.Epoch, TemporaryOnly: r.Leave}
	switch {
	case reservation.Outcome == LinkedPodUsable, reservation.Outcome == NeverReported && link.Exists():
		return MoveTerms{}, true, nil
	case reservation.Outcome == Reserved:
		return move, false, nil
	case reservation.Outcome == Restored && r.Known != nil:
		move.Above = r.Known.Epoch
		return move, false, nil
	default:
		return MoveTerms{}, false, fmt.Errorf("%w: %s of %s", ErrNoAvailablePod, service.Service, service.Namespace)
	}
}

// linked returns the outcome of the step that links, 0 if another caller has changed the link; and whether the reservation is
// unused. If the link may exist, the reservation must count.
func linked(change LinkChange, err error) (outcome Outcome, unused bool, _ error) {
	switch {
	case errors.Is(err, ErrOutcomeUnknown), errors.As(err, new(*UnconfirmedError)):
		return 0, false, err
	case err != nil:
		return 0, true, ofKnown(err)
	case !change.Applied:
		return 0, true, nil
	case change.Previous == NoPod:
		return Created, false, nil
	default:
		return Relinked, false, nil
	}
}

// release undoes the reservation of a link that was not made. If that fails, the pod only looks busier than it is, until its
// next report.
func (u *LinkUsecase) release(ctx context.Context, service ServiceKey, reservation Reservation) {
	if reservation.HeartbeatMs == 0 {
		return // Nothing was counted.
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), releaseTimeout)
	defer cancel()
	_ = u.pods.Release(ctx, service, reservation)
}

// describe returns the pod of a link that was made; nil if it can't be known soon. A pod that is missing in the view has first
// reported after it was read.
func (u *LinkUsecase) describe(ctx context.Context, service ServiceKey, reservation Reservation) *SharedPod {
	ctx, cancel := context.WithTimeout(ctx, describeTimeout)
	defer cancel()
	if entry := u.pods.find(ctx, service, reservation.Pod); entry.pod != nil {
		return entry.pod
	}
	if reservation.HeartbeatMs == 0 {
		return nil // It has not reported.
	}
	pod, err := u.pods.Get(ctx, service, reservation.Pod)
	if err != nil {
		return nil
	}
	return &SharedPod{Pod: pod}
}

// ofKnown names the field of the request in the error of a known epoch that the store refused.
func ofKnown(err error) error {
	var invalid *InvalidArgumentError
	if errors.As(err, &invalid) && invalid.Field == "above_epoch" {
		return &InvalidArgumentError{"known.epoch", invalid.Detail}
	}
	return err
}

// notExecuted maps an error of a step before the one that links. Even if that step was executed, the link is unchanged, so
// the call is safe to retry.
func notExecuted(err error) error {
	if errors.Is(err, ErrOutcomeUnknown) || errors.Is(err, ErrDeadlineExceeded) {
		return fmt.Errorf("%w: %v", ErrStoreUnavailable, err) //nolint:errorlint // The class changes on purpose.
	}
	return err
}
