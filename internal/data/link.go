package data

import (
	"context"
	"errors"
	"fmt"
	"math"
	"sort"
	"strings"

	"github.com/redis/go-redis/v9"

	"podlink/internal/biz"
)

type linkRepo struct{ *Store }

// NewLinkRepo returns the links in the store.
func NewLinkRepo(store *Store) biz.LinkRepo { return linkRepo{store} }

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

// withEpoch adds an expected epoch to the arguments, if there is one.
func withEpoch(expected *biz.Epoch, args ...any) []any {
	if expected != nil {
		args = append(args, int64(*expected))
	}
	return args
}

// one runs a script on one link; args follow the service.
func (r linkRepo) one(ctx context.Context, sc *script, key biz.LinkKey, args ...any) (reply, biz.LinkChange, error) {
	full := make([]any, 1, 1+len(args))
	full[0] = key.Service
	for _, arg := range args {
		full = append(full, plain(arg))
	}
	answer, err := r.run(ctx, sc, r.keys.links(key.Namespace, key.UID), full...)
	if err != nil {
		return reply{}, biz.LinkChange{}, err
	}
	change, err := linkChange(answer, key)
	return answer, change, err
}

// plain turns the domain's types into those that go-redis takes as arguments.
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

// linkChange reads "<status> <previous> <pod> <epoch> <ttl>".
func linkChange(r reply, key biz.LinkKey) (biz.LinkChange, error) {
	_, rest, _ := strings.Cut(r.text, " ")
	previous, rest, ok := strings.Cut(rest, " ")
	if !ok {
		return biz.LinkChange{}, r.malformed()
	}
	var p parser
	change := biz.LinkChange{Previous: p.pod(previous), Link: p.link(key, rest)}
	return change, p.err
}

// link reads "<pod> <epoch> <ttl>".
func (p *parser) link(key biz.LinkKey, text string) biz.Link {
	pod, rest, _ := strings.Cut(text, " ")
	epoch, ttl, _ := strings.Cut(rest, " ")
	return biz.Link{Key: key, Pod: p.pod(pod), Epoch: p.epoch(epoch), TTL: p.ttl(ttl)}
}

// change runs a mutation. One that changed nothing has nothing to be confirmed.
func (r linkRepo) change(ctx context.Context, sc *script, key biz.LinkKey, args ...any) (biz.LinkChange, error) {
	answer, change, err := r.one(ctx, sc, key, args...)
	if err != nil {
		return biz.LinkChange{}, err
	}
	r.metrics.count(sc.name, answer.status(), change)
	switch answer.status() {
	case "LINKED", "REMOVED":
		change.Applied = true
		return change, answer.confirmed(&change.Link)
	case "REFUSED", "EXISTING", "ABSENT":
		return change, nil
	case "EPOCH_MISMATCH":
		return biz.LinkChange{}, &biz.EpochMismatchError{Current: change.Link}
	default:
		return biz.LinkChange{}, fmt.Errorf("%s: unknown status %q", sc.name, answer.status())
	}
}

// Get reads a persistent link without a script; how long a temporary one still lasts only the store's clock knows.
func (r linkRepo) Get(ctx context.Context, key biz.LinkKey) (biz.Link, error) {
	name := r.keys.links(key.Namespace, key.UID)
	c := r.metrics.begin(ctx, commandGet, scriptGetLink.kind)
	reply, err := r.read(ctx, name, "hget", name, key.Service)
	value, _ := reply.(string)
	link, temporary, err := persistentLink(key, value, err)
	c.end(err)
	if err != nil || !temporary {
		return link, err
	}
	answer, change, err := r.one(ctx, scriptGetLink, key)
	r.metrics.countRead(scriptGetLink, answer.status())
	return change.Link, err
}

// persistentLink reads what HGET answered for the link. For a temporary one it only says so.
func persistentLink(key biz.LinkKey, value string, err error) (link biz.Link, temporary bool, _ error) {
	switch {
	case errors.Is(err, redis.Nil):
		return biz.NoLink(key), false, nil
	case err != nil:
		return biz.Link{}, false, err
	case !strings.HasSuffix(value, " 0"):
		return biz.Link{}, true, nil // Or not a link at all: the script tells.
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

// BatchGet reads all links in one pipeline, and those that turn out to be temporary in a second one.
func (r linkRepo) BatchGet(ctx context.Context, namespace, service string, uids []string) ([]biz.Link, error) {
	values := make([]*redis.StringCmd, len(uids))
	err := r.pipelined(ctx, scriptGetLink.kind, func(pipe redis.Pipeliner) {
		for i, uid := range uids {
			values[i] = pipe.HGet(ctx, r.keys.links(namespace, uid), service)
		}
	})
	if err != nil {
		return nil, err
	}
	links := make([]biz.Link, len(uids))
	var later []int
	for i, uid := range uids {
		key := biz.LinkKey{Namespace: namespace, UID: uid, Service: service}
		value, err := values[i].Result()
		if err != nil && !errors.Is(err, redis.Nil) {
			err = readError(ctx, err)
		}
		link, temporary, err := persistentLink(key, value, err)
		if err != nil {
			return nil, err
		}
		links[i] = link
		if temporary {
			links[i] = biz.NoLink(key)
			later = append(later, i)
		}
	}
	return links, r.getTemporary(ctx, links, later)
}

// getTemporary reads links[i] by script for every i of later.
func (r linkRepo) getTemporary(ctx context.Context, links []biz.Link, later []int) error {
	if len(later) == 0 {
		return nil
	}
	replies := make([]*redis.Cmd, len(later))
	send := func(command, text string) error {
		err := r.pipelined(ctx, scriptGetLink.kind, func(pipe redis.Pipeliner) {
			for n, i := range later {
				key := links[i].Key
				replies[n] = pipe.Do(ctx, command, text, 1, r.keys.links(key.Namespace, key.UID), key.Service)
			}
		})
		if err != nil {
			return fmt.Errorf("%s: %w", scriptGetLink.name, err)
		}
		for _, cmd := range replies {
			if err := cmd.Err(); err != nil {
				return fmt.Errorf("%s: %w", scriptGetLink.name, readError(ctx, err))
			}
		}
		return nil
	}
	err := send("evalsha", scriptGetLink.sha)
	if redis.HasErrorPrefix(err, "NOSCRIPT") {
		err = send("eval", scriptGetLink.source)
	}
	if err != nil {
		return err
	}
	for n, i := range later {
		answer, err := scriptGetLink.reply(replies[n].Val(), nil)
		if err != nil {
			return err
		}
		change, err := linkChange(answer, links[i].Key)
		if err != nil {
			return err
		}
		r.metrics.countRead(scriptGetLink, answer.status())
		links[i] = change.Link
	}
	return nil
}

func (r linkRepo) List(ctx context.Context, namespace, uid string) ([]biz.Link, error) {
	reply, err := r.run(ctx, scriptGetServices, r.keys.links(namespace, uid))
	if err != nil {
		return nil, err
	}
	if len(reply.values)%2 == 0 {
		return nil, reply.malformed()
	}
	fields, err := reply.fields(1, len(reply.values)-1)
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
