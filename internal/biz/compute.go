package biz

import (
	"context"
	"errors"
	"fmt"
)

// Outcome says what Compute did.
type Outcome int

const (
	// Existing means that the link stands and its pod is usable, or nothing is known about the service's pods.
	Existing Outcome = iota + 1
	// Created means that there was no link.
	Created
	// Relinked means that the link's pod was not usable.
	Relinked
)

// maxComputeAttempts bounds how often Compute judges a link that others keep changing under it.
const maxComputeAttempts = 8

// ErrContended is the ErrStoreUnavailable of a compute whose link changed at each of its attempts.
var ErrContended = fmt.Errorf("%w: the link changed %d times while it was computed", ErrStoreUnavailable, maxComputeAttempts)

// Compute answers the standing link when its pod is usable, and links the key to the best pod otherwise.
//
// A link and the pods of a service are different keys of the store, and no step spans two keys. So Compute reads the
// link, and answers it when the view of the pods says that it may stay. Otherwise it judges its pod and reserves the best
// one in one step on the pods, and then links in one step on the link, on the condition that the link is still the one
// that was judged. When it is not, the reservation is given back and the new link is judged. Concurrent computes of one
// key therefore end on one pod.
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

// reserveAndLink is one attempt of Compute, on the link that it has found. With neither an outcome nor an error somebody
// else was faster: change.Link is what stands now.
func (u *LinkUsecase) reserveAndLink(
	ctx context.Context, key LinkKey, ttl TTL, link Link,
) (outcome Outcome, change LinkChange, err error) {
	service := key.service()
	reservation, err := u.pods.Reserve(ctx, service, link.Pod)
	if err != nil {
		return 0, LinkChange{}, notExecuted(err)
	}
	switch {
	case reservation.Outcome == LinkedPodUsable, reservation.Outcome == NeverReported && link.Exists():
		return Existing, LinkChange{Previous: link.Pod, Link: link}, nil
	case reservation.Outcome != Reserved:
		return 0, LinkChange{}, fmt.Errorf("%w: %s of %s", ErrNoAvailablePod, key.Service, key.Namespace)
	}
	change, err = u.links.SetIfEpoch(ctx, key, reservation.Pod, ttl, link.Epoch)
	switch {
	case errors.Is(err, ErrOutcomeUnknown), errors.As(err, new(*UnconfirmedError)):
		return 0, LinkChange{}, err // The link stands, or may: the reservation must count.
	case err == nil && change.Applied && change.Previous == NoPod:
		return Created, change, nil
	case err == nil && change.Applied:
		return Relinked, change, nil
	}
	// No link was made. A reservation that can't be given back only makes its pod look busier than it is until its
	// next report.
	_ = u.pods.Release(ctx, service, reservation)
	if err != nil {
		return 0, LinkChange{}, err
	}
	return 0, change, nil
}

// notExecuted is for a step before the one that links: whatever became of that step, the link was not touched.
func notExecuted(err error) error {
	if errors.Is(err, ErrOutcomeUnknown) || errors.Is(err, ErrDeadlineExceeded) {
		return fmt.Errorf("%w: %v", ErrStoreUnavailable, err) //nolint:errorlint // The class changes on purpose.
	}
	return err
}
