package data

import (
	"context"
	"errors"

	"podlink/internal/biz"
	"podlink/internal/rdb"
)

// linkStep is a mutation of the link of a key: the script, and its arguments as types that go-redis accepts.
type linkStep struct {
	key    biz.LinkKey
	script *rdb.Script
	args   []any
}

// mostArgs is the greatest number of arguments of a script on a link.
const mostArgs = 9

// binding returns the arguments that every script has which links the key: the service, the TTL, the pod and the limit of links.
func (r linkRepo) binding(key biz.LinkKey, pod biz.PodID, ttl biz.TTL) []any {
	args := make([]any, 0, mostArgs)
	return append(args, key.Service, int32(ttl), int32(pod), r.maxServices)
}

func (r linkRepo) set(key biz.LinkKey, pod biz.PodID, ttl biz.TTL, terms biz.SetTerms) linkStep {
	args := r.binding(key, pod, ttl)
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
		args = append(args, int64(terms.Claim), int64(above), int32(*terms.Own))
		if terms.Persistent != nil {
			args = append(args, asFlag(*terms.Persistent))
		}
	case claims:
		args = withClaim(terms, args)
	}
	return linkStep{key, scriptSetLink, args}
}

func (r linkRepo) trySet(key biz.LinkKey, pod biz.PodID, ttl biz.TTL, own *biz.PodID) linkStep {
	args := r.binding(key, pod, ttl)
	if own != nil {
		args = append(args, int32(*own))
	}
	return linkStep{key, scriptTrySetLink, args}
}

func (r linkRepo) setIfAbsent(key biz.LinkKey, pod biz.PodID, ttl biz.TTL, terms biz.SetTerms) linkStep {
	return linkStep{key, scriptSetIfAbsent, withClaim(terms, r.binding(key, pod, ttl))}
}

func (r linkRepo) setIfEpoch(key biz.LinkKey, pod biz.PodID, ttl biz.TTL, move biz.MoveTerms) linkStep {
	args := append(r.binding(key, pod, ttl), int64(move.Epoch))
	if move.TemporaryOnly || move.Above != 0 {
		args = append(args, asFlag(move.TemporaryOnly))
	}
	if move.Above != 0 {
		args = append(args, int64(move.Above))
	}
	return linkStep{key, scriptComputeLink, args}
}

func remove(key biz.LinkKey, keep int32, terms biz.RemoveTerms) linkStep {
	args := append(make([]any, 0, mostArgs), key.Service, keep)
	switch {
	case terms.Expected != nil:
		args = append(args, int64(*terms.Expected))
	case terms.Own != nil:
		args = append(args, anyEpoch)
	}
	if terms.Own != nil {
		args = append(args, int32(*terms.Own))
	}
	return linkStep{key, scriptRemoveLink, args}
}

func removeWithID(key biz.LinkKey, pod biz.PodID, keep int32) linkStep {
	return linkStep{key, scriptRemoveWithID, []any{key.Service, keep, int32(pod)}}
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

// BatchSet implements biz.LinkRepo.
func (r linkRepo) BatchSet(ctx context.Context, key biz.ServiceKey, items []biz.SetItem) []biz.ChangeResult {
	return each(ctx, r, items, func(item biz.SetItem) linkStep {
		if item.IfAbsent {
			return r.setIfAbsent(linkOf(key, item.UID), item.Pod, item.TTL, item.Terms)
		}
		return r.set(linkOf(key, item.UID), item.Pod, item.TTL, item.Terms)
	})
}

// BatchSetIfEpoch implements biz.LinkRepo.
func (r linkRepo) BatchSetIfEpoch(ctx context.Context, key biz.ServiceKey, items []biz.MoveItem) []biz.ChangeResult {
	return each(ctx, r, items, func(item biz.MoveItem) linkStep {
		return r.setIfEpoch(linkOf(key, item.UID), item.Pod, item.TTL, item.Terms)
	})
}

// BatchRemove implements biz.LinkRepo.
func (r linkRepo) BatchRemove(ctx context.Context, key biz.ServiceKey, items []biz.RemoveItem) []biz.ChangeResult {
	return each(ctx, r, items, func(item biz.RemoveItem) linkStep {
		if item.Pod != nil {
			return removeWithID(linkOf(key, item.UID), *item.Pod, item.Keep)
		}
		return remove(linkOf(key, item.UID), item.Keep, item.Terms)
	})
}

// linkOf returns the key of a user's link.
func linkOf(service biz.ServiceKey, uid string) biz.LinkKey {
	return biz.LinkKey{Namespace: service.Namespace, UID: uid, Service: service.Service}
}

// each runs the mutation of each item, and returns their results in the same order.
func each[Item any](ctx context.Context, r linkRepo, items []Item, stepOf func(Item) linkStep) []biz.ChangeResult {
	links, steps := make([]linkStep, len(items)), make([]rdb.Step, len(items))
	for i, item := range items {
		step := stepOf(item)
		links[i] = step
		steps[i] = rdb.Step{Script: step.script, Key: r.keys.links(step.key.Namespace, step.key.UID), Args: step.args}
	}
	results := make([]biz.ChangeResult, len(items))
	for i, reply := range r.runner.RunEach(ctx, steps) {
		change, err := r.result(links[i].script, reply, links[i].key)
		if err != nil && !errors.As(err, new(*biz.UnconfirmedError)) {
			change = biz.LinkChange{Previous: biz.NoPod, Link: biz.NoLink(links[i].key)}
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
