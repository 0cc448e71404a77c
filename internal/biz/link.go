package biz

import "context"

// PodID is the ordinal of a pod in its StatefulSet.
type PodID int32

// NoPod is the pod of a link that does not exist.
const NoPod PodID = -1

// Epoch is the fencing token of a link. It grows with every change of owner; 0 means that there is no link.
type Epoch int64

// TTL is a time to live in seconds, at least 1, or one of the two constants.
type TTL int32

const (
	// Forever means persistent, without expiry.
	Forever TTL = -1
	// Gone is the TTL of a link that does not exist.
	Gone TTL = -2
)

// LinkKey identifies a link.
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

// Link is the assignment of a key to a pod.
type Link struct {
	Key   LinkKey
	Pod   PodID
	TTL   TTL
	Epoch Epoch
	Claim Generation // the process of the pod that has claimed the link; 0: none
}

// NoLink returns the value for a key that has no link.
func NoLink(key LinkKey) Link { return Link{Key: key, Pod: NoPod, TTL: Gone} }

// Exists reports whether l is a link, not NoLink.
func (l Link) Exists() bool { return l.Pod != NoPod }

// Persistent reports whether the link never expires.
func (l Link) Persistent() bool { return l.TTL == Forever }

// LinkChange is the result of a mutation.
type LinkChange struct {
	// Applied is false if the condition of the mutation did not hold; nothing has changed then.
	Applied bool
	// Previous is the pod of the live link before the mutation, NoPod if there was none.
	Previous PodID
	// Link is the link after the mutation.
	Link Link
	// Kept says that the mutation was applied, and that the link was already as asked: nothing was written.
	Kept bool
	// Removed is the epoch of the link that the mutation has removed; 0: it has removed none.
	Removed Epoch
}

// LinkRepo stores links.
//
// Every mutation must be one atomic step and must be sent to the store at most once. It must return ErrOutcomeUnknown if
// its reply was lost, and *UnconfirmedError if it was executed but is not as durable as configured. A link that has
// expired by the store's clock must be absent for every method, from the first millisecond on. When the owner of a key
// changes, the epoch must become max(previous epoch + 1, the store's clock in µs), and greater than an epoch that the call
// must exceed; if that is more than a day ahead of the clock, the error must be *InvalidArgumentError. A link must keep its
// claim until its owner changes or Remove keeps it. The methods that link must return *LimitError if the uid has as many
// links as the store allows, and the key none. The repo may retry reads.
//
// A batch or a list is not guaranteed to be a snapshot across links.
type LinkRepo interface {
	// Set links the key to the pod, replacing any link. If terms.Expected is not nil and not the current epoch (0: no link),
	// Set must change nothing and return *EpochMismatchError. A link that terms.Claim has claimed keeps its epoch, whatever
	// Expected is, unless its epoch is not above terms.Above; one that a greater generation of the pod has claimed must give
	// *SupersededError; any other gets a new epoch and the claim. If terms.Own is not nil and not the pod of a link, or there is
	// none, or the link is not as terms.Persistent says, Set must change nothing and return *EpochMismatchError, whatever the other
	// terms are.
	Set(ctx context.Context, key LinkKey, pod PodID, ttl TTL, terms SetTerms) (LinkChange, error)
	// TrySet links the key to the pod unless the key has a persistent link to another pod; if own is not nil, only if the key has a
	// link to that pod.
	TrySet(ctx context.Context, key LinkKey, pod PodID, ttl TTL, own *PodID) (LinkChange, error)
	// SetIfAbsent links the key to the pod, with the claim, unless the key has a link. terms.Expected, Own and Persistent are unused.
	SetIfAbsent(ctx context.Context, key LinkKey, pod PodID, ttl TTL, terms SetTerms) (LinkChange, error)
	// SetIfEpoch links the key to the pod if there is no link, or if the link has the epoch. No link has epoch 0. With
	// move.TemporaryOnly it must not change a persistent link.
	SetIfEpoch(ctx context.Context, key LinkKey, pod PodID, ttl TTL, move MoveTerms) (LinkChange, error)
	// Get must return NoLink and no error if there is none.
	Get(ctx context.Context, key LinkKey) (Link, error)
	// GetIfPersist must return NoLink if there is none or it is temporary.
	GetIfPersist(ctx context.Context, key LinkKey) (Link, error)
	// BatchGet must return one result per uid, in the same order. The error of one link must not fail the others; it must be
	// the error of the call only if the store has answered for no link.
	BatchGet(ctx context.Context, namespace, service string, uids []string) ([]LinkResult, error)
	// Remove removes the link, or with keep >= 1 turns it into a temporary one for keep seconds. If terms.Expected is not nil and not
	// the current epoch (0: no link), or there is a link and terms.Own is not nil and not its pod, Remove must change nothing and
	// return *EpochMismatchError.
	Remove(ctx context.Context, key LinkKey, keep int32, terms RemoveTerms) (LinkChange, error)
	// RemoveWithID is Remove for a link to the pod; it must not change a link to another pod.
	RemoveWithID(ctx context.Context, key LinkKey, pod PodID, keep int32) (LinkChange, error)
	// List must return every live link of the uid, sorted by service.
	List(ctx context.Context, namespace, uid string) ([]Link, error)

	// The batches must do for each item what the method for one link does, in any order, and return the results in the order of the
	// items. No uid is in a batch twice. An item that fails must not change the result of another.

	// BatchSet is Set, or SetIfAbsent, for each item.
	BatchSet(ctx context.Context, key ServiceKey, items []SetItem) []ChangeResult
	// BatchSetIfEpoch is SetIfEpoch for each item.
	BatchSetIfEpoch(ctx context.Context, key ServiceKey, items []MoveItem) []ChangeResult
	// BatchRemove is Remove, or RemoveWithID, for each item.
	BatchRemove(ctx context.Context, key ServiceKey, items []RemoveItem) []ChangeResult
}

// SetTerms are the conditions of a Set, and what a new epoch must exceed.
type SetTerms struct {
	Expected *Epoch     // nil: any
	Claim    Generation // 0: none
	Above    *Epoch     // nil: none; at most a day ahead of the store's clock
	Own      *PodID     // the pod that the link must have; nil: any or none
	// Persistent says, with Own, whether the link must be persistent or temporary; nil: either. A link has the same epoch as both.
	Persistent *bool
}

// RemoveTerms are the conditions of a Remove.
type RemoveTerms struct {
	Expected *Epoch // nil: any
	Own      *PodID // the pod that a link must have; nil: any
}

// MoveTerms are the conditions of SetIfEpoch.
type MoveTerms struct {
	Epoch         Epoch // 0: there must be no link
	TemporaryOnly bool
	Above         Epoch // 0: none
}

// LinkResult is a link, or why it could not be read.
type LinkResult struct {
	Link Link // with an error only its Key
	Err  error
}

// LinkUsecase implements the operations on links: it validates their arguments and calls the repo.
type LinkUsecase struct {
	links    LinkRepo
	pods     *PodViews
	observer Observer
	maxBatch int
}

// NewLinkUsecase returns the use-case on the repos.
func NewLinkUsecase(links LinkRepo, pods *PodViews, limits Limits, observer Observer) *LinkUsecase {
	return &LinkUsecase{links: links, pods: pods, observer: observer, maxBatch: limits.MaxBatch}
}

// Limits are the limits of one request.
type Limits struct {
	MaxBatch int // entries, at least 1
}

// Set links the key to the pod, replacing any link. See LinkRepo for the terms.
func (u *LinkUsecase) Set(ctx context.Context, key LinkKey, pod *PodID, ttl TTL, terms SetTerms) (LinkChange, error) {
	err := firstError(key.validate(), validatePod(pod), validateTTL("persist_seconds", ttl), validateTerms(terms))
	if err != nil {
		return LinkChange{}, err
	}
	return u.links.Set(ctx, key, *pod, ttl, terms)
}

// TrySet links the key to the pod unless the key has a persistent link to another pod; if own is not nil, only if the key has a
// link to that pod.
func (u *LinkUsecase) TrySet(ctx context.Context, key LinkKey, pod *PodID, ttl TTL, own *PodID) (LinkChange, error) {
	if err := firstError(key.validate(), validatePod(pod), validateTTL("persist_seconds", ttl)); err != nil {
		return LinkChange{}, err
	}
	return u.links.TrySet(ctx, key, *pod, ttl, own)
}

// SetIfAbsent links the key to the pod unless the key has a link.
func (u *LinkUsecase) SetIfAbsent(
	ctx context.Context, key LinkKey, pod *PodID, ttl TTL, terms SetTerms,
) (LinkChange, error) {
	err := firstError(key.validate(), validatePod(pod), validateTTL("persist_seconds", ttl), validateTerms(terms))
	if err != nil {
		return LinkChange{}, err
	}
	return u.links.SetIfAbsent(ctx, key, *pod, ttl, terms)
}

// Get returns the link, NoLink if there is none.
func (u *LinkUsecase) Get(ctx context.Context, key LinkKey) (Link, error) {
	if err := key.validate(); err != nil {
		return Link{}, err
	}
	return u.links.Get(ctx, key)
}

// GetIfPersist returns the link, NoLink if there is none or it is temporary.
func (u *LinkUsecase) GetIfPersist(ctx context.Context, key LinkKey) (Link, error) {
	if err := key.validate(); err != nil {
		return Link{}, err
	}
	return u.links.GetIfPersist(ctx, key)
}

// BatchGet returns one result per distinct uid, in the order of uids.
func (u *LinkUsecase) BatchGet(ctx context.Context, namespace, service string, uids []string) ([]LinkResult, error) {
	err := firstError(
		validateName("namespace", namespace),
		validateName("service", service),
		validateBatch("uids", uids, u.maxBatch, validateUID),
	)
	if err != nil {
		return nil, err
	}
	uids = distinct(uids)
	u.observer.BatchStarted(LinkBatch, len(uids))
	return u.links.BatchGet(ctx, namespace, service, uids)
}

// Remove removes the link, or with keep >= 1 turns it into a temporary one for keep seconds. See LinkRepo for the terms.
func (u *LinkUsecase) Remove(ctx context.Context, key LinkKey, keep int32, terms RemoveTerms) (LinkChange, error) {
	if err := firstError(key.validate(), validateKeep(keep), validateExpected(terms.Expected)); err != nil {
		return LinkChange{}, err
	}
	return u.links.Remove(ctx, key, max(keep, 0), terms)
}

// RemoveWithID is Remove for a link to the pod; it does not change a link to another pod.
func (u *LinkUsecase) RemoveWithID(ctx context.Context, key LinkKey, pod *PodID, keep int32) (LinkChange, error) {
	if err := firstError(key.validate(), validatePod(pod), validateKeep(keep)); err != nil {
		return LinkChange{}, err
	}
	return u.links.RemoveWithID(ctx, key, *pod, max(keep, 0))
}

// List returns every live link of the uid, sorted by service.
func (u *LinkUsecase) List(ctx context.Context, namespace, uid string) ([]Link, error) {
	if err := firstError(validateName("namespace", namespace), validateUID("uid", uid)); err != nil {
		return nil, err
	}
	return u.links.List(ctx, namespace, uid)
}

func (k LinkKey) service() ServiceKey { return ServiceKey{Namespace: k.Namespace, Service: k.Service} }

func (k ServiceKey) link(uid string) LinkKey {
	return LinkKey{Namespace: k.Namespace, UID: uid, Service: k.Service}
}
