package biz

import (
	"context"
	"errors"
	"fmt"
)

// Outcome is the result of Compute.
type Outcome int

const (
	// Existing means that the current link was kept: its pod is usable, or no pod of the service has ever reported.
	Existing Outcome = iota + 1
	// Created means that there was no link.
	Created
	// Relinked means that the pod of the current link was not usable.
	Relinked
)

// maxComputeAttempts is the number of attempts of Compute while other callers change the link.
const maxComputeAttempts = 8

// ErrContended is the ErrStoreUnavailable of a compute whose link changed during each of its attempts.
var ErrContended = fmt.Errorf("%w: the link changed %d times while it was computed", ErrStoreUnavailable, maxComputeAttempts)

// Compute returns the current link if its pod is usable, and otherwise links the key to the best pod.
//
// The link and the pods of a service are different keys of the store, and no atomic step spans two keys. So Compute first
// reads the link, and returns it if the cached view of the pods says that its pod is usable. Otherwise one step on the
// pods checks the link's pod and reserves the best one if it is not usable, and a compare-and-set on the link's epoch
// links the key to the reserved pod. If the link has changed in between, Compute releases the reservation and tries again
// with the new link. So concurrent computes of one key end on one pod.
func (u *LinkUsecase) Compute(
	ctx context.Context, key LinkKey, ttl TTL,
) (outcome Outcome, change LinkChange, err error) {
	if err := firstError(key.validate(), validateTTL("persist_seconds", ttl)); err != nil {
		return 0, LinkChange{}, err
	}
	attempts := 0
	ctx = u.observer.ComputeStarted(ctx, key.service())
	defer func() { u.observer.ComputeEnded(ctx, ComputeResult{outcome, attempts, err}) }()

	link, err := u.links.Get(ctx, key)
	if err != nil {
		return 0, LinkChange{}, notExecuted(err)
	}
	if link.Exists() && u.pods.mayKeep(ctx, key.service(), link.Pod) {
		return Existing, LinkChange{Previous: link.Pod, Link: link}, nil
	}
	for attempts < maxComputeAttempts {
		attempts++
		outcome, change, err := u.reserveAndLink(ctx, key, ttl, link)
		if outcome != 0 || err != nil {
			return outcome, change, err
		}
		link = change.Link
	}
	return 0, LinkChange{}, ErrContended
}

// reserveAndLink is one attempt of Compute, for the link that was read. If it returns neither an outcome nor an error,
// another caller has changed the link, and change.Link is the new one.
func (u *LinkUsecase) reserveAndLink(
	ctx context.Context, key LinkKey, ttl TTL, link Link,
) (outcome Outcome, change LinkChange, err error) {
	service := key.service()
	reservation, err := u.pods.Reserve(ctx, service, ReserveRequest{Linked: link.Pod})
	if err != nil {
		return 0, LinkChange{}, notExecuted(err)
	}
	switch {
	case reservation.Outcome == LinkedPodUsable, reservation.Outcome == NeverReported && link.Exists():
		return Existing, LinkChange{Previous: link.Pod, Link: link}, nil
	case reservation.Outcome != Reserved:
		return 0, LinkChange{}, fmt.Errorf("%w: %s of %s", ErrNoAvailablePod, key.Service, key.Namespace)
	}
	change, err = u.links.SetIfEpoch(ctx, key, reservation.Pod, ttl, MoveTerms{Epoch: link.Epoch})
	switch {
	case errors.Is(err, ErrOutcomeUnknown), errors.As(err, new(*UnconfirmedError)):
		return 0, LinkChange{}, err // The link may exist, so the reservation must count.
	case err == nil && change.Applied && change.Previous == NoPod:
		return Created, change, nil
	case err == nil && change.Applied:
		return Relinked, change, nil
	}
	// No link was made. If releasing fails, the pod only looks busier than it is until its next report.
	_ = u.pods.Release(ctx, service, reservation)
	if err != nil {
		return 0, LinkChange{}, err
	}
	return 0, change, nil
}

// notExecuted maps an error of a step before the one that links. Even if that step was executed, the link is unchanged, so
// the call is safe to retry.
func notExecuted(err error) error {
	if errors.Is(err, ErrOutcomeUnknown) || errors.Is(err, ErrDeadlineExceeded) {
		return fmt.Errorf("%w: %v", ErrStoreUnavailable, err) //nolint:errorlint // The class changes on purpose.
	}
	return err
}
