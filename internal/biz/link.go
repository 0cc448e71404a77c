package biz

import "context"

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
	// SetIfEpoch links the key to the pod if there is no link, or if the link has the epoch; no link has epoch 0.
	SetIfEpoch(ctx context.Context, key LinkKey, pod PodID, ttl TTL, epoch Epoch) (LinkChange, error)
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
	observer Observer
	maxBatch int
}

// NewLinkUsecase returns the use-case on its repos.
func NewLinkUsecase(links LinkRepo, pods *PodViews, limits Limits, observer Observer) *LinkUsecase {
	return &LinkUsecase{links: links, pods: pods, observer: observer, maxBatch: limits.MaxBatch}
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
	u.observer.LinkBatchStarted(len(uids))
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
