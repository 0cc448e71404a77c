package biz

import (
	"context"
	"errors"
	"fmt"
)

// PodID is the ordinal of a pod in its StatefulSet.
type PodID int32

// NoPod stands where there is no link.
const NoPod PodID = -1

// Epoch is the fencing token of a link: every owner that the link did not have before gets a greater one. 0: no link.
type Epoch int64

// TTL is a time to live in seconds, at least 1, or one of the two constants.
type TTL int32

const (
	// Forever means persistent, without expiry.
	Forever TTL = -1
	// Gone means that there is nothing that could expire.
	Gone TTL = -2
)

// LinkKey names a link.
type LinkKey struct {
	Namespace, UID, Service string
}

func (k LinkKey) validate() error {
	return firstError(
		validateName("namespace", k.Namespace),
		validateUID("uid", k.UID),
		validateName("service", k.Service),
	)
}

// Link says which pod holds a key.
type Link struct {
	Key   LinkKey
	Pod   PodID
	TTL   TTL
	Epoch Epoch
}

// NoLink is the answer where no link stands.
func NoLink(key LinkKey) Link { return Link{Key: key, Pod: NoPod, TTL: Gone} }

// Exists tells a link from the absence of one.
func (l Link) Exists() bool { return l.Pod != NoPod }

// Persistent is true for a link without expiry.
func (l Link) Persistent() bool { return l.TTL == Forever }

// LinkChange is the result of a mutation.
type LinkChange struct {
	// Applied is false when the mutation's condition did not hold; nothing has changed then.
	Applied bool
	// Previous is the pod of the live link before the mutation, NoPod without one.
	Previous PodID
	// Link is what stands after the mutation.
	Link Link
}

// LinkRepo stores links.
//
// Every mutation must be one atomic step, must happen wholly or not at all, and must be sent to the store at most
// once; ErrOutcomeUnknown when it was sent and its reply was lost, *UnconfirmedError when it was carried out but is not
// as durable as configured. A link that has expired by the store's clock must be absent for every method, from the first
// millisecond on. Whenever a key gets an owner that it did not have before, its epoch must be max(previous epoch + 1, the
// store's clock in µs). A read may be repeated by the repo.
//
// Not promised: that a batch or a list is a snapshot across links.
type LinkRepo interface {
	// Set links the key to the pod, whatever stood before. With expected, it must change nothing unless the current
	// epoch (0: no link) is the expected one, and return *EpochMismatchError.
	Set(ctx context.Context, key LinkKey, pod PodID, ttl TTL, expected *Epoch) (LinkChange, error)
	// TrySet links the key to the pod unless a persistent link to another pod stands.
	TrySet(ctx context.Context, key LinkKey, pod PodID, ttl TTL) (LinkChange, error)
	// SetIfAbsent links the key to the pod unless any link stands.
	SetIfAbsent(ctx context.Context, key LinkKey, pod PodID, ttl TTL) (LinkChange, error)
	// Compute links the key to the pod unless a link stands whose epoch is not unusable; unusable is the epoch of the
	// link that the caller has found to be on a pod that can't be used, 0 when there was none.
	Compute(ctx context.Context, key LinkKey, pod PodID, ttl TTL, unusable Epoch) (LinkChange, error)
	// Get must return NoLink, and no error, when there is none.
	Get(ctx context.Context, key LinkKey) (Link, error)
	// GetIfPersist must return NoLink when there is none or it is temporary.
	GetIfPersist(ctx context.Context, key LinkKey) (Link, error)
	// BatchGet must return one link per uid, in the same order.
	BatchGet(ctx context.Context, namespace, service string, uids []string) ([]Link, error)
	// Remove removes the link, or with keep >= 1 makes it a temporary one of that many seconds. Expected is as in Set.
	Remove(ctx context.Context, key LinkKey, keep int32, expected *Epoch) (LinkChange, error)
	// RemoveWithID does the same, but only to a link to the pod.
	RemoveWithID(ctx context.Context, key LinkKey, pod PodID, keep int32) (LinkChange, error)
	// List must return every live link of the uid, by service.
	List(ctx context.Context, namespace, uid string) ([]Link, error)
}

// LinkUsecase carries out the operations on links.
type LinkUsecase struct {
	links    LinkRepo
	pods     *PodViews
	metrics  *Metrics
	maxBatch int
}

// NewLinkUsecase returns the use-case on its repos.
func NewLinkUsecase(links LinkRepo, pods *PodViews, limits Limits, metrics *Metrics) *LinkUsecase {
	return &LinkUsecase{links: links, pods: pods, metrics: metrics, maxBatch: limits.MaxBatch}
}

// Limits bounds what a caller may ask for at once.
type Limits struct {
	MaxBatch int // entries, at least 1
}

// Set links the key to the pod, whatever stood before; with expected only if that is the current epoch.
func (u *LinkUsecase) Set(ctx context.Context, key LinkKey, pod *PodID, ttl TTL, expected *Epoch) (LinkChange, error) {
	if err := firstError(key.validate(), validatePod(pod), validateTTL("persist_seconds", ttl), validateExpected(expected)); err != nil {
		return LinkChange{}, err
	}
	return u.links.Set(ctx, key, *pod, ttl, expected)
}

// TrySet links the key to the pod unless a persistent link to another pod stands.
func (u *LinkUsecase) TrySet(ctx context.Context, key LinkKey, pod *PodID, ttl TTL) (LinkChange, error) {
	if err := firstError(key.validate(), validatePod(pod), validateTTL("persist_seconds", ttl)); err != nil {
		return LinkChange{}, err
	}
	return u.links.TrySet(ctx, key, *pod, ttl)
}

// SetIfAbsent links the key to the pod unless any link stands.
func (u *LinkUsecase) SetIfAbsent(ctx context.Context, key LinkKey, pod *PodID, ttl TTL) (LinkChange, error) {
	if err := firstError(key.validate(), validatePod(pod), validateTTL("persist_seconds", ttl)); err != nil {
		return LinkChange{}, err
	}
	return u.links.SetIfAbsent(ctx, key, *pod, ttl)
}

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

var errContended = fmt.Errorf("%w: the link changed %d times while it was computed", ErrStoreUnavailable, maxComputeAttempts)

// Compute answers the standing link when its pod is usable, and links the key to the best pod otherwise.
//
// A link and the pods of a service are different keys of the store, and no step spans two keys. So Compute reads the
// link, and answers it when the view of the pods says that it may stay. Otherwise it judges its pod and reserves the best
// one in one step on the pods, and then links in one step on the link, on the condition that the link is still the one
// that was judged. When it is not, the reservation is given back and
// the new link is judged. Concurrent computes of one key therefore end on one pod.
func (u *LinkUsecase) Compute(
	ctx context.Context, key LinkKey, ttl TTL,
) (outcome Outcome, change LinkChange, err error) {
	if err := firstError(key.validate(), validateTTL("persist_seconds", ttl)); err != nil {
		return 0, LinkChange{}, err
	}
	ctx, decision := u.metrics.decide(ctx, key)
	defer func() { decision.end(outcome, err) }()
	return u.compute(ctx, key, ttl, decision)
}

// compute is Compute, unobserved but for the number of attempts.
func (u *LinkUsecase) compute(
	ctx context.Context, key LinkKey, ttl TTL, decision *decision,
) (Outcome, LinkChange, error) {
	service := key.service()
	link, err := u.links.Get(ctx, key)
	if err != nil {
		return 0, LinkChange{}, notCarriedOut(err)
	}
	if link.Exists() && u.pods.mayKeep(ctx, service, link.Pod) {
		return Existing, LinkChange{Previous: link.Pod, Link: link}, nil
	}
	for decision.attempts < maxComputeAttempts {
		decision.attempts++
		choice, err := u.pods.Reserve(ctx, service, link.Pod)
		if err != nil {
			return 0, LinkChange{}, notCarriedOut(err)
		}
		switch {
		case choice.Verdict == StandingUsable, choice.Verdict == NothingKnown && link.Exists():
			return Existing, LinkChange{Previous: link.Pod, Link: link}, nil
		case choice.Verdict != Reserved:
			_ = u.pods.mayKeep(ctx, service, NoPod) // For the metrics: perhaps nothing else reads the pods of this service.
			return 0, LinkChange{}, fmt.Errorf("%w: %s of %s", ErrNoAvailablePod, key.Service, key.Namespace)
		}
		change, err := u.links.Compute(ctx, key, choice.Pod, ttl, link.Epoch)
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
		_ = u.pods.Release(ctx, service, choice)
		if err != nil {
			return 0, LinkChange{}, err
		}
		// Somebody else was faster: judge the link that stands now.
		link = change.Link
	}
	return 0, LinkChange{}, errContended
}

// notCarriedOut is for a step before the one that links: whatever became of that step, the link was not touched.
func notCarriedOut(err error) error {
	if errors.Is(err, ErrOutcomeUnknown) || errors.Is(err, ErrDeadlineExceeded) {
		return fmt.Errorf("%w: %v", ErrStoreUnavailable, err) //nolint:errorlint // The class changes on purpose.
	}
	return err
}

// Get returns the link, NoLink when there is none.
func (u *LinkUsecase) Get(ctx context.Context, key LinkKey) (Link, error) {
	if err := key.validate(); err != nil {
		return Link{}, err
	}
	return u.links.Get(ctx, key)
}

// GetIfPersist returns the link, NoLink when there is none or it is temporary.
func (u *LinkUsecase) GetIfPersist(ctx context.Context, key LinkKey) (Link, error) {
	if err := key.validate(); err != nil {
		return Link{}, err
	}
	return u.links.GetIfPersist(ctx, key)
}

// BatchGet returns one link per distinct uid, in the order asked.
func (u *LinkUsecase) BatchGet(ctx context.Context, namespace, service string, uids []string) ([]Link, error) {
	err := firstError(
		validateName("namespace", namespace),
		validateName("service", service),
		validateBatch("uids", uids, u.maxBatch, validateUID),
	)
	if err != nil {
		return nil, err
	}
	uids = distinct(uids)
	u.metrics.batches.WithLabelValues(batchOfLinks).Observe(float64(len(uids)))
	return u.links.BatchGet(ctx, namespace, service, uids)
}

// Remove removes the link, or with keep >= 1 makes it a temporary one of that many seconds; with expected only if that
// is the current epoch.
func (u *LinkUsecase) Remove(ctx context.Context, key LinkKey, keep int32, expected *Epoch) (LinkChange, error) {
	if err := firstError(key.validate(), validateKeep(keep), validateExpected(expected)); err != nil {
		return LinkChange{}, err
	}
	return u.links.Remove(ctx, key, max(keep, 0), expected)
}

// RemoveWithID does the same, but only to a link to the pod.
func (u *LinkUsecase) RemoveWithID(ctx context.Context, key LinkKey, pod *PodID, keep int32) (LinkChange, error) {
	if err := firstError(key.validate(), validatePod(pod), validateKeep(keep)); err != nil {
		return LinkChange{}, err
	}
	return u.links.RemoveWithID(ctx, key, *pod, max(keep, 0))
}

// List returns every live link of the uid, by service.
func (u *LinkUsecase) List(ctx context.Context, namespace, uid string) ([]Link, error) {
	if err := firstError(validateName("namespace", namespace), validateUID("uid", uid)); err != nil {
		return nil, err
	}
	return u.links.List(ctx, namespace, uid)
}

func (k LinkKey) service() ServiceKey { return ServiceKey{Namespace: k.Namespace, Service: k.Service} }
