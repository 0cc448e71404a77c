package biz

import (
	"context"
	"errors"
	"fmt"
)

// Batch is a kind of batch request.
type Batch int

// The kinds of batch requests.
const (
	LinkBatch Batch = iota
	WorkloadBatch
	ComputeBatch
	SetBatch
	RemoveBatch
	VerifyBatch
)

// SetItem is one uid of LinkRepo.BatchSet.
type SetItem struct {
	UID      string
	Pod      PodID
	TTL      TTL
	Terms    SetTerms
	IfAbsent bool // as SetIfAbsent, not as Set
}

// NewSetItem is an unvalidated SetItem.
type NewSetItem struct {
	UID      string
	Pod      *PodID
	TTL      TTL
	Terms    SetTerms
	IfAbsent bool
}

func (i NewSetItem) validate() error {
	err := firstError(validatePod(i.Pod), validateTTL("persist_seconds", i.TTL), validateTerms(i.Terms))
	if err == nil && i.IfAbsent && i.Terms.Expected != nil {
		err = &InvalidArgumentError{"expected_epoch", "must not be set together with if_absent"}
	}
	return err
}

// MoveItem is one uid of LinkRepo.BatchSetIfEpoch.
type MoveItem struct {
	UID   string
	Pod   PodID
	TTL   TTL
	Terms MoveTerms
}

// RemoveItem is one uid of LinkRepo.BatchRemove.
type RemoveItem struct {
	UID   string
	Keep  int32
	Terms RemoveTerms
	Pod   *PodID // as RemoveWithID for this pod; nil: as Remove
}

func (i RemoveItem) validate() error {
	if i.Pod == nil {
		return firstError(validateKeep(i.Keep), validateExpected(i.Terms.Expected))
	}
	if i.Terms.Expected != nil {
		return &InvalidArgumentError{"expected_epoch", "must not be set together with pod_id"}
	}
	return firstError(validatePod(i.Pod), validateKeep(i.Keep))
}

// VerifyItem is one uid of BatchVerify.
type VerifyItem struct {
	UID   string
	Epoch Epoch // that the link should have
}

// ChangeResult is the result of one mutation of a batch, or why it failed.
type ChangeResult struct {
	LinkChange // with an error only Link.Key, of NoLink; LinkRepo also gives what *UnconfirmedError has changed
	Err        error
}

// BatchSet is Set, or SetIfAbsent, for each of the uids. Each item fails by itself. The call fails only if the store has answered
// for no item.
func (u *LinkUsecase) BatchSet(ctx context.Context, key ServiceKey, items []NewSetItem) ([]ChangeResult, error) {
	uid := func(item NewSetItem) string { return item.UID }
	if err := validateItems(key, items, u.maxBatch, uid, NewSetItem.validate); err != nil {
		return nil, err
	}
	u.observer.BatchStarted(SetBatch, len(items))
	valid := make([]SetItem, len(items))
	for i, item := range items {
		valid[i] = SetItem{item.UID, *item.Pod, item.TTL, item.Terms, item.IfAbsent}
	}
	results := u.links.BatchSet(ctx, key, valid)
	return withoutFailed(results), unanswered(results)
}

// BatchRemove is Remove, or RemoveWithID, for each of the uids. Each item fails by itself. The call fails only if the store has
// answered for no item.
func (u *LinkUsecase) BatchRemove(ctx context.Context, key ServiceKey, items []RemoveItem) ([]ChangeResult, error) {
	uid := func(item RemoveItem) string { return item.UID }
	if err := validateItems(key, items, u.maxBatch, uid, RemoveItem.validate); err != nil {
		return nil, err
	}
	u.observer.BatchStarted(RemoveBatch, len(items))
	valid := make([]RemoveItem, len(items))
	for i, item := range items {
		item.Keep = max(item.Keep, 0)
		valid[i] = item
	}
	results := u.links.BatchRemove(ctx, key, valid)
	return withoutFailed(results), unanswered(results)
}

// BatchVerify returns the links that are not to the pod with the given epoch, and those that could not be read, in the order of
// the items.
func (u *LinkUsecase) BatchVerify(ctx context.Context, key ServiceKey, pod *PodID, items []VerifyItem) ([]LinkResult, error) {
	uid := func(item VerifyItem) string { return item.UID }
	check := func(item VerifyItem) error { return validateEpoch("epoch", item.Epoch) }
	if err := firstError(validateItems(key, items, u.maxBatch, uid, check), validatePod(pod)); err != nil {
		return nil, err
	}
	u.observer.BatchStarted(VerifyBatch, len(items))
	uids := make([]string, len(items))
	for i, item := range items {
		uids[i] = item.UID
	}
	results, err := u.links.BatchGet(ctx, key.Namespace, key.Service, uids)
	if err != nil {
		return nil, err
	}
	differ := results[:0]
	for i, result := range results {
		if result.Err != nil || result.Link.Pod != *pod || result.Link.Epoch != items[i].Epoch {
			differ = append(differ, result)
		}
	}
	return differ, nil
}

// validateItems checks the names of a batch, the number of its items, and each of them: its uid, which no other item may have,
// and the rest by check.
func validateItems[Item any](key ServiceKey, items []Item, limit int, uid func(Item) string, check func(Item) error) error {
	if err := key.validate(); err != nil {
		return err
	}
	if err := validateSize("items", len(items), limit); err != nil {
		return err
	}
	seen := make(map[string]int, len(items))
	for i, item := range items {
		err := validateUID("uid", uid(item))
		if first, twice := seen[uid(item)]; err == nil && twice {
			err = &InvalidArgumentError{"uid", fmt.Sprintf("must not be that of items[%d]", first)}
		}
		seen[uid(item)] = i
		if err := firstError(err, check(item)); err != nil {
			return ofItem(i, err)
		}
	}
	return nil
}

// ofItem names the item in the error of its field.
func ofItem(i int, err error) error {
	var invalid *InvalidArgumentError
	if errors.As(err, &invalid) {
		return &InvalidArgumentError{fmt.Sprintf("items[%d].%s", i, invalid.Field), invalid.Detail}
	}
	return err
}

// withoutFailed takes the changes of failed items from the results: a caller gets their problem instead.
func withoutFailed(results []ChangeResult) []ChangeResult {
	for i, result := range results {
		if result.Err != nil {
			results[i].LinkChange = LinkChange{Previous: NoPod, Link: NoLink(result.Link.Key)}
		}
	}
	return results
}

// unanswered returns the error of a batch of mutations if the store has answered for none of them, else nil. The call may have
// changed something if any of them may have.
func unanswered(results []ChangeResult) error {
	var failure error
	for _, result := range results {
		if !isSilence(result.Err) {
			return nil
		}
		if failure == nil || errors.Is(result.Err, ErrOutcomeUnknown) && !errors.Is(failure, ErrOutcomeUnknown) {
			failure = result.Err
		}
	}
	return failure
}

// isSilence reports whether a call failed because the store has not answered it, or refuses calls for now.
func isSilence(err error) bool {
	for _, silence := range []error{ErrStoreUnavailable, ErrOutcomeUnknown, ErrCanceled, ErrDeadlineExceeded} {
		if errors.Is(err, silence) {
			return true
		}
	}
	return false
}
