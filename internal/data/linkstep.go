package data

import (
	"context"

	"podlink/internal/biz"
	"podlink/internal/rdb"
)

// linkStep is a mutation of the link of a uid: the script and its arguments, which follow the service.
type linkStep struct {
	uid    string
	script *rdb.Script
	args   []any
}

func (r linkRepo) set(uid string, pod biz.PodID, ttl biz.TTL, terms biz.SetTerms) linkStep {
	args := []any{ttl, pod, r.limits.MaxServices}
	claims := terms.Claim != 0 || terms.Above != nil
	switch {
	case terms.Expected != nil:
		args = append(args, int64(*terms.Expected))
	case claims || terms.Own != nil:
		args = append(args, anyEpoch)
	}
	switch {
	case terms.Own != nil:
		above := biz.Epoch(0)
		if terms.Above != nil {
			above = *terms.Above
		}
		args = append(args, int64(terms.Claim), int64(above), *terms.Own)
	case claims:
		args = withClaim(terms, args)
	}
	return linkStep{uid, scriptSetLink, args}
}

func (r linkRepo) trySet(uid string, pod biz.PodID, ttl biz.TTL, own *biz.PodID) linkStep {
	args := []any{ttl, pod, r.limits.MaxServices}
	if own != nil {
		args = append(args, *own)
	}
	return linkStep{uid, scriptTrySetLink, args}
}

func (r linkRepo) setIfAbsent(uid string, pod biz.PodID, ttl biz.TTL, terms biz.SetTerms) linkStep {
	return linkStep{uid, scriptSetIfAbsent, withClaim(terms, []any{ttl, pod, r.limits.MaxServices})}
}

func (r linkRepo) setIfEpoch(uid string, pod biz.PodID, ttl biz.TTL, move biz.MoveTerms) linkStep {
	args := []any{ttl, pod, r.limits.MaxServices, int64(move.Epoch)}
	if move.TemporaryOnly || move.Above != 0 {
		args = append(args, asFlag(move.TemporaryOnly))
	}
	if move.Above != 0 {
		args = append(args, int64(move.Above))
	}
	return linkStep{uid, scriptComputeLink, args}
}

func remove(uid string, keep int32, terms biz.RemoveTerms) linkStep {
	args := []any{keep}
	switch {
	case terms.Expected != nil:
		args = append(args, int64(*terms.Expected))
	case terms.Own != nil:
		args = append(args, anyEpoch)
	}
	if terms.Own != nil {
		args = append(args, *terms.Own)
	}
	return linkStep{uid, scriptRemoveLink, args}
}

func removeWithID(uid string, pod biz.PodID, keep int32) linkStep {
	return linkStep{uid, scriptRemoveWithID, []any{keep, pod}}
}

// anyEpoch is the argument for an expected epoch that is unset.
const anyEpoch = -1

// withClaim appends the claim, and the epoch that a new one must exceed, as far as they are set.
func withClaim(terms biz.SetTerms, args []any) []any {
	if terms.Claim != 0 || terms.Above != nil {
		args = append(args, int64(terms.Claim))
	}
	if terms.Above != nil {
		args = append(args, int64(*terms.Above))
	}
	return args
}

// linkArgs returns the arguments of a script on a link, as types that go-redis accepts.
func linkArgs(service string, args []any) []any {
	full := make([]any, 1, 1+len(args))
	full[0] = service
	for _, arg := range args {
		switch v := arg.(type) {
		case biz.PodID:
			arg = int32(v)
		case biz.TTL:
			arg = int32(v)
		}
		full = append(full, arg)
	}
	return full
}

// BatchSet implements biz.LinkRepo.
func (r linkRepo) BatchSet(ctx context.Context, key biz.ServiceKey, items []biz.SetItem) []biz.ChangeResult {
	return each(ctx, r, key, items, func(item biz.SetItem) linkStep {
		if item.IfAbsent {
			return r.setIfAbsent(item.UID, item.Pod, item.TTL, item.Terms)
		}
		return r.set(item.UID, item.Pod, item.TTL, item.Terms)
	})
}

// BatchSetIfEpoch implements biz.LinkRepo.
func (r linkRepo) BatchSetIfEpoch(ctx context.Context, key biz.ServiceKey, items []biz.MoveItem) []biz.ChangeResult {
	return each(ctx, r, key, items, func(item biz.MoveItem) linkStep {
		return r.setIfEpoch(item.UID, item.Pod, item.TTL, item.Terms)
	})
}

// BatchRemove implements biz.LinkRepo.
func (r linkRepo) BatchRemove(ctx context.Context, key biz.ServiceKey, items []biz.RemoveItem) []biz.ChangeResult {
	return each(ctx, r, key, items, func(item biz.RemoveItem) linkStep {
		if item.Pod != nil {
			return removeWithID(item.UID, *item.Pod, item.Keep)
		}
		return remove(item.UID, item.Keep, item.Terms)
	})
}

// each runs the mutation of each item, and returns their results in the same order.
func each[Item any](
	ctx context.Context, r linkRepo, service biz.ServiceKey, items []Item, stepOf func(Item) linkStep,
) []biz.ChangeResult {
	links, steps := make([]linkStep, len(items)), make([]rdb.Step, len(items))
	for i, item := range items {
		step := stepOf(item)
		links[i] = step
		steps[i] = rdb.Step{
			Script: step.script, Key: r.keys.links(service.Namespace, step.uid), Args: linkArgs(service.Service, step.args),
		}
	}
	results := make([]biz.ChangeResult, len(items))
	for i, reply := range r.runner.RunEach(ctx, steps) {
		key := biz.LinkKey{Namespace: service.Namespace, UID: links[i].uid, Service: service.Service}
		change, err := r.result(links[i].script, reply, key)
		if err != nil {
			change = biz.LinkChange{Previous: biz.NoPod, Link: biz.NoLink(key)}
		}
		results[i] = biz.ChangeResult{LinkChange: change, Err: err}
	}
	return results
}

// result returns the result of a mutation in one reply of each.
func (r linkRepo) result(script *rdb.Script, reply rdb.Reply, key biz.LinkKey) (biz.LinkChange, error) {
	if reply.Err != nil {
		return biz.LinkChange{}, domainError(reply.Err)
	}
	change, err := linkChange(reply, key)
	if err != nil {
		return biz.LinkChange{}, err
	}
	return r.changed(script, reply, change)
}
