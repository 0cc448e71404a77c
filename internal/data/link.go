package data

import (
	"context"
	"math"
	"sort"
	"strings"

	"podlink/internal/biz"
	"podlink/internal/rdb"
)

type linkRepo struct {
	store
	metrics *LinkMetrics
}

// NewLinkRepo returns the repo of the links in the store.
func NewLinkRepo(runner *rdb.Runner, keys Keyspace, metrics *LinkMetrics) biz.LinkRepo {
	return linkRepo{store{runner, keys}, metrics}
}

func (r linkRepo) Set(
	ctx context.Context, key biz.LinkKey, pod biz.PodID, ttl biz.TTL, expected *biz.Epoch,
) (biz.LinkChange, error) {
	return r.change(ctx, scriptSetLink, key, withEpoch(expected, ttl, pod)...)
}

func (r linkRepo) TrySet(ctx context.Context, key biz.LinkKey, pod biz.PodID, ttl biz.TTL) (biz.LinkChange, error) {
	return r.change(ctx, scriptTrySetLink, key, ttl, pod)
}

func (r linkRepo) SetIfAbsent(ctx context.Context, key biz.LinkKey, pod biz.PodID, ttl biz.TTL) (biz.LinkChange, error) {
	return r.change(ctx, scriptSetIfAbsent, key, ttl, pod)
}

func (r linkRepo) SetIfEpoch(
	ctx context.Context, key biz.LinkKey, pod biz.PodID, ttl biz.TTL, epoch biz.Epoch,
) (biz.LinkChange, error) {
	return r.change(ctx, scriptComputeLink, key, ttl, pod, int64(epoch))
}

func (r linkRepo) Remove(
	ctx context.Context, key biz.LinkKey, keep int32, expected *biz.Epoch,
) (biz.LinkChange, error) {
	return r.change(ctx, scriptRemoveLink, key, withEpoch(expected, keep)...)
}

func (r linkRepo) RemoveWithID(
	ctx context.Context, key biz.LinkKey, pod biz.PodID, keep int32,
) (biz.LinkChange, error) {
	return r.change(ctx, scriptRemoveWithID, key, keep, pod)
}

// withEpoch appends the expected epoch to the arguments if it is set.
func withEpoch(expected *biz.Epoch, args ...any) []any {
	if expected != nil {
		args = append(args, int64(*expected))
	}
	return args
}

// one runs a script on one link; args follow the service.
func (r linkRepo) one(ctx context.Context, script *rdb.Script, key biz.LinkKey, args ...any) (rdb.Reply, biz.LinkChange, error) {
	full := make([]any, 1, 1+len(args))
	full[0] = key.Service
	for _, arg := range args {
		full = append(full, plain(arg))
	}
	reply, err := r.run(ctx, script, r.keys.links(key.Namespace, key.UID), full...)
	if err != nil {
		return rdb.Reply{}, biz.LinkChange{}, err
	}
	change, err := linkChange(reply, key)
	return reply, change, err
}

// plain converts the domain's types to types that go-redis accepts as arguments.
func plain(arg any) any {
	switch v := arg.(type) {
	case biz.PodID:
		return int32(v)
	case biz.TTL:
		return int32(v)
	default:
		return arg
	}
}

// linkChange parses the reply "<status> <previous> <pod> <epoch> <ttl>".
func linkChange(r rdb.Reply, key biz.LinkKey) (biz.LinkChange, error) {
	_, rest, _ := strings.Cut(r.Text, " ")
	previous, rest, ok := strings.Cut(rest, " ")
	if !ok {
		return biz.LinkChange{}, r.Malformed()
	}
	var p parser
	change := biz.LinkChange{Previous: p.pod(previous), Link: p.link(key, rest)}
	return change, p.err
}

// link parses "<pod> <epoch> <ttl>".
func (p *parser) link(key biz.LinkKey, text string) biz.Link {
	pod, rest, _ := strings.Cut(text, " ")
	epoch, ttl, _ := strings.Cut(rest, " ")
	return biz.Link{Key: key, Pod: p.pod(pod), Epoch: p.epoch(epoch), TTL: p.ttl(ttl)}
}

// change runs a mutation. A mutation that changed nothing needs no confirmation by replicas.
func (r linkRepo) change(ctx context.Context, script *rdb.Script, key biz.LinkKey, args ...any) (biz.LinkChange, error) {
	reply, change, err := r.one(ctx, script, key, args...)
	if err != nil {
		return biz.LinkChange{}, err
	}
	r.metrics.count(script, reply, change)
	switch reply.Status() {
	case "LINKED", "REMOVED":
		change.Applied = true
		return change, unconfirmed(reply, &change.Link)
	case "REFUSED", "EXISTING", "ABSENT":
		return change, nil
	case "EPOCH_MISMATCH":
		return biz.LinkChange{}, &biz.EpochMismatchError{Current: change.Link}
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
	reply, change, err := r.one(ctx, scriptGetLink, key)
	r.metrics.countRead(scriptGetLink, reply)
	return change.Link, err
}

// persistentLink decodes the value of a field. If the link is temporary, it only reports that, because reading it takes a
// script.
func persistentLink(key biz.LinkKey, value string, found bool) (link biz.Link, temporary bool, _ error) {
	if !found {
		return biz.NoLink(key), false, nil
	}
	if !strings.HasSuffix(value, " 0") {
		return biz.NoLink(key), true, nil // Or it is not a link, which the script detects.
	}
	var p parser
	pod, epoch, _ := strings.Cut(strings.TrimSuffix(value, " 0"), " ")
	link = biz.Link{
		Key:   key,
		Pod:   biz.PodID(p.number(pod, 0, math.MaxInt32)),
		Epoch: biz.Epoch(p.number(epoch, 1, maxEpoch)),
		TTL:   biz.Forever,
	}
	return link, false, p.err
}

func (r linkRepo) GetIfPersist(ctx context.Context, key biz.LinkKey) (biz.Link, error) {
	_, change, err := r.one(ctx, scriptGetPersist, key)
	return change.Link, err
}

// BatchGet reads all links in one pipeline, and then the temporary ones by script in a second one.
func (r linkRepo) BatchGet(ctx context.Context, namespace, service string, uids []string) ([]biz.Link, error) {
	reads := make([][]any, len(uids))
	for i, uid := range uids {
		reads[i] = []any{"hget", r.keys.links(namespace, uid), service}
	}
	results, err := r.runner.ReadAll(ctx, scriptGetLink.KeyKind, reads)
	if err != nil {
		return nil, domainError(err)
	}
	links := make([]biz.Link, len(uids))
	var temporaries []int // indexes of links
	for i, uid := range uids {
		if err := results[i].Err; err != nil {
			return nil, domainError(err)
		}
		value, found := results[i].Value.(string)
		key := biz.LinkKey{Namespace: namespace, UID: uid, Service: service}
		link, temporary, err := persistentLink(key, value, found)
		if err != nil {
			return nil, err
		}
		links[i] = link
		if temporary {
			temporaries = append(temporaries, i)
		}
	}
	return links, r.getTemporary(ctx, service, links, temporaries)
}

// getTemporary sets links[i] by script for every i in temporaries. All links are of the service.
func (r linkRepo) getTemporary(ctx context.Context, service string, links []biz.Link, temporaries []int) error {
	if len(temporaries) == 0 {
		return nil
	}
	keys := make([]string, len(temporaries))
	for n, i := range temporaries {
		keys[n] = r.keys.links(links[i].Key.Namespace, links[i].Key.UID)
	}
	replies, err := r.runner.RunAll(ctx, scriptGetLink, keys, service)
	if err != nil {
		return domainError(err)
	}
	for n, i := range temporaries {
		if err := replies[n].Err; err != nil {
			return domainError(err)
		}
		change, err := linkChange(replies[n], links[i].Key)
		if err != nil {
			return err
		}
		r.metrics.countRead(scriptGetLink, replies[n])
		links[i] = change.Link
	}
	return nil
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
