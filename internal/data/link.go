package data

import (
	"context"
	"errors"
	"math"
	"sort"
	"strings"

	"podlink/internal/biz"
	"podlink/internal/rdb"
)

type linkRepo struct {
	store
	maxServices any // of LinkLimits, as an argument of scripts
	metrics     *LinkMetrics
}

// LinkLimits are the limits on stored links.
type LinkLimits struct {
	MaxServices int // live links of one uid
}

// maxServices is the setting of LinkLimits.MaxServices.
const maxServices = "limits.max_services"

// NewLinkRepo returns the repo of the links in the store.
func NewLinkRepo(runner *rdb.Runner, keys Keyspace, limits LinkLimits, metrics *LinkMetrics) biz.LinkRepo {
	return linkRepo{store{runner, keys}, limits.MaxServices, metrics}
}

func (r linkRepo) Set(
	ctx context.Context, key biz.LinkKey, pod biz.PodID, ttl biz.TTL, terms biz.SetTerms,
) (biz.LinkChange, error) {
	return r.change(ctx, r.set(key, pod, ttl, terms))
}

func (r linkRepo) TrySet(
	ctx context.Context, key biz.LinkKey, pod biz.PodID, ttl biz.TTL, own *biz.PodID,
) (biz.LinkChange, error) {
	return r.change(ctx, r.trySet(key, pod, ttl, own))
}

func (r linkRepo) SetIfAbsent(
	ctx context.Context, key biz.LinkKey, pod biz.PodID, ttl biz.TTL, terms biz.SetTerms,
) (biz.LinkChange, error) {
	return r.change(ctx, r.setIfAbsent(key, pod, ttl, terms))
}

func (r linkRepo) SetIfEpoch(
	ctx context.Context, key biz.LinkKey, pod biz.PodID, ttl biz.TTL, move biz.MoveTerms,
) (biz.LinkChange, error) {
	return r.change(ctx, r.setIfEpoch(key, pod, ttl, move))
}

func (r linkRepo) Remove(
	ctx context.Context, key biz.LinkKey, keep int32, terms biz.RemoveTerms,
) (biz.LinkChange, error) {
	return r.change(ctx, remove(key, keep, terms))
}

func (r linkRepo) RemoveWithID(
	ctx context.Context, key biz.LinkKey, pod biz.PodID, keep int32,
) (biz.LinkChange, error) {
	return r.change(ctx, removeWithID(key, pod, keep))
}

// one runs a script on one link; args begin with the service.
func (r linkRepo) one(ctx context.Context, script *rdb.Script, key biz.LinkKey, args ...any) (rdb.Reply, biz.LinkChange, error) {
	reply, err := r.run(ctx, script, r.keys.links(key.Namespace, key.UID), args...)
	if err != nil {
		return rdb.Reply{}, biz.LinkChange{}, err
	}
	change, err := linkChange(reply, key)
	return reply, change, err
}

// linkChange parses the reply "<status> <previous> <pod> <epoch> <ttl>", which ends with the claim if there is one, or with the epoch
// of the removed link if the link was removed.
func linkChange(r rdb.Reply, key biz.LinkKey) (biz.LinkChange, error) {
	status, rest, _ := strings.Cut(r.Text, " ")
	previous, rest, ok := strings.Cut(rest, " ")
	if !ok {
		return biz.LinkChange{}, r.Malformed()
	}
	var p parser
	change := biz.LinkChange{Previous: p.pod(previous)}
	if removed, gone := strings.CutPrefix(rest, noLink+" "); gone && status == "REMOVED" {
		change.Link, change.Removed = biz.NoLink(key), p.epoch(removed)
	} else {
		change.Link = p.link(key, rest)
	}
	return change, p.err
}

// noLink is how replies give a link that does not exist.
const noLink = "-1 0 -2"

// link parses "<pod> <epoch> <ttl>" or "<pod> <epoch> <ttl> <claim>".
func (p *parser) link(key biz.LinkKey, text string) biz.Link {
	pod, rest, _ := strings.Cut(text, " ")
	epoch, rest, _ := strings.Cut(rest, " ")
	ttl, claim, claimed := strings.Cut(rest, " ")
	link := biz.Link{Key: key, Pod: p.pod(pod), Epoch: p.epoch(epoch), TTL: p.ttl(ttl)}
	if claimed {
		link.Claim = p.claim(claim)
	}
	return link
}

// change runs a mutation.
func (r linkRepo) change(ctx context.Context, step linkStep) (biz.LinkChange, error) {
	reply, change, err := r.one(ctx, step.script, step.key, step.args...)
	if err != nil {
		return biz.LinkChange{}, err
	}
	return r.changed(step.script, reply, change)
}

// changed returns the result of a mutation. One that changed nothing needs no confirmation by replicas.
func (r linkRepo) changed(script *rdb.Script, reply rdb.Reply, change biz.LinkChange) (biz.LinkChange, error) {
	r.metrics.count(script, reply, change)
	switch reply.Status() {
	case "LINKED", "KEPT", "REMOVED":
		change.Applied, change.Kept = true, reply.Status() == "KEPT"
		return change, unconfirmed(reply, &change.Link)
	case "REFUSED", "EXISTING", "ABSENT":
		return change, nil
	case "EPOCH_MISMATCH":
		return biz.LinkChange{}, &biz.EpochMismatchError{Current: change.Link}
	case "SUPERSEDED":
		return biz.LinkChange{}, &biz.SupersededError{Generation: change.Link.Claim}
	case "LIMIT_EXCEEDED":
		return biz.LinkChange{}, &biz.LimitError{Limit: maxServices}
	case "TOO_FAR_AHEAD":
		return biz.LinkChange{}, &biz.InvalidArgumentError{
			Field: "above_epoch", Detail: "must be at most a day ahead of the store's clock, in µs since 1970",
		}
	default:
		return biz.LinkChange{}, reply.Malformed()
	}
}

// Get reads a persistent link without a script. A temporary one takes a script, because its TTL depends on the store's
// clock.
func (r linkRepo) Get(ctx context.Context, key biz.LinkKey) (biz.Link, error) {
	name := r.keys.links(key.Namespace, key.UID)
	value, found, call, err := r.runner.HGet(ctx, scriptGetLink.KeyKind, name, key.Service)
	if err != nil {
		return biz.Link{}, domainError(err)
	}
	link, temporary, err := persistentLink(key, value, found)
	call.Decoded(err)
	if err != nil || !temporary {
		return link, err
	}
	reply, change, err := r.one(ctx, scriptGetLink, key, key.Service)
	r.metrics.countRead(scriptGetLink, reply)
	return change.Link, err
}

// persistentLink decodes the value of a field: "<pod> <epoch> 0" or "<pod> <epoch> 0 <claim>". If the link is temporary, it
// only reports that, because reading it takes a script.
func persistentLink(key biz.LinkKey, value string, found bool) (link biz.Link, temporary bool, _ error) {
	if !found {
		return biz.NoLink(key), false, nil
	}
	pod, rest, _ := strings.Cut(value, " ")
	epoch, rest, _ := strings.Cut(rest, " ")
	expiry, claim, claimed := strings.Cut(rest, " ")
	if expiry != "0" {
		return biz.NoLink(key), true, nil // Or it is not a link, which the script detects.
	}
	var p parser
	link = biz.Link{
		Key:   key,
		Pod:   biz.PodID(p.number(pod, 0, math.MaxInt32)),
		Epoch: biz.Epoch(p.number(epoch, 1, maxEpoch)),
		TTL:   biz.Forever,
	}
	if claimed {
		link.Claim = p.claim(claim)
	}
	return link, false, p.err
}

func (r linkRepo) GetIfPersist(ctx context.Context, key biz.LinkKey) (biz.Link, error) {
	_, change, err := r.one(ctx, scriptGetPersist, key, key.Service)
	return change.Link, err
}

// BatchGet reads all links in one pipeline, and then the temporary ones by script in a second one. A link that can't be read
// has an error in its place; if none can, because the store does not answer, the call fails.
func (r linkRepo) BatchGet(ctx context.Context, namespace, service string, uids []string) ([]biz.LinkResult, error) {
	reads := make([][]any, len(uids))
	for i, uid := range uids {
		reads[i] = []any{"hget", r.keys.links(namespace, uid), service}
	}
	values, err := r.runner.ReadAll(ctx, scriptGetLink.KeyKind, reads)
	if err != nil {
		return nil, domainError(err)
	}
	results := make([]biz.LinkResult, len(uids))
	var byScript []int // indexes of results
	for i, uid := range uids {
		key := biz.LinkKey{Namespace: namespace, UID: uid, Service: service}
		results[i].Link = biz.NoLink(key)
		if err := values[i].Err; err != nil {
			results[i].Err = domainError(err)
			continue
		}
		value, found := values[i].Value.(string)
		link, temporary, err := persistentLink(key, value, found)
		if temporary || err != nil {
			byScript = append(byScript, i) // The script also reports a value that is not a link, which counts as a failure then.
			continue
		}
		results[i].Link = link
	}
	r.getByScript(ctx, service, results, byScript)
	return results, unanswered(results)
}

// getByScript sets results[i] by script for every i in indexes. All links are of the service.
func (r linkRepo) getByScript(ctx context.Context, service string, results []biz.LinkResult, indexes []int) {
	if len(indexes) == 0 {
		return
	}
	keys := make([]string, len(indexes))
	for n, i := range indexes {
		keys[n] = r.keys.links(results[i].Link.Key.Namespace, results[i].Link.Key.UID)
	}
	replies, err := r.runner.RunAll(ctx, scriptGetLink, keys, service)
	for n, i := range indexes {
		if err != nil {
			results[i].Err = domainError(err)
			continue
		}
		results[i].Link, results[i].Err = r.found(replies[n], results[i].Link.Key)
	}
}

// found returns the link in one reply of getByScript.
func (r linkRepo) found(reply rdb.Reply, key biz.LinkKey) (biz.Link, error) {
	if reply.Err != nil {
		return biz.NoLink(key), domainError(reply.Err)
	}
	change, err := linkChange(reply, key)
	if err != nil {
		return biz.NoLink(key), err
	}
	r.metrics.countRead(scriptGetLink, reply)
	return change.Link, nil
}

// unanswered returns the first error if the store has answered for no link. A foreign value is an answer.
func unanswered(results []biz.LinkResult) error {
	for _, result := range results {
		if result.Err == nil || errors.Is(result.Err, biz.ErrStoreDataCorrupt) {
			return nil
		}
	}
	return results[0].Err
}

func (r linkRepo) List(ctx context.Context, namespace, uid string) ([]biz.Link, error) {
	reply, err := r.run(ctx, scriptGetServices, r.keys.links(namespace, uid))
	if err != nil {
		return nil, err
	}
	if len(reply.Values)%2 == 0 {
		return nil, reply.Malformed()
	}
	fields, err := reply.Fields(1, len(reply.Values)-1)
	if err != nil {
		return nil, err
	}
	links := make([]biz.Link, 0, len(fields)/2)
	for i := 0; i < len(fields); i += 2 {
		var p parser
		links = append(links, p.link(biz.LinkKey{Namespace: namespace, UID: uid, Service: p.text(fields[i])}, fields[i+1]))
		if p.err != nil {
			return nil, p.err
		}
	}
	sort.Slice(links, func(i, j int) bool { return links[i].Key.Service < links[j].Key.Service })
	return links, nil
}
