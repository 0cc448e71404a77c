package data

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strings"

	"podlink/internal/biz"
)

// ScanKeys implements biz.KeyScanner. It reads the hashes of a part of the keys in one pipeline, then the temporary links by script, and
// the TTLs of the keys that have no others.
func (f *Fleet) ScanKeys(ctx context.Context, token string, n int) ([]biz.StoredLinks, string, error) {
	prefix := string(f.keys) + ":link:"
	names, next, err := f.scan(ctx, prefix+"*", token, n)
	if err != nil || len(names) == 0 {
		return nil, next, err
	}
	reads := make([][]any, len(names))
	for i, name := range names {
		reads[i] = []any{"hgetall", name}
	}
	values, err := f.runner.ReadAll(ctx, keyLink, reads)
	if err != nil {
		return nil, "", domainError(err)
	}
	s := storedLinks{temporary: make(map[string][]storedAt)}
	for i, name := range names {
		namespace, uid, ok := strings.Cut(strings.TrimPrefix(name, prefix), ":")
		err := domainError(values[i].Err)
		switch {
		case !ok:
		case errors.Is(err, biz.ErrStoreDataCorrupt):
			s.keys = append(s.keys, biz.StoredLinks{Namespace: namespace, UID: uid, Foreign: []string{""}})
		case err != nil:
			return nil, "", err
		default:
			s.add(namespace, uid, fieldsOf(values[i].Value))
		}
	}
	if err := f.addTemporary(ctx, &s); err != nil {
		return nil, "", err
	}
	return s.keys, next, f.addUnending(ctx, &s)
}

// storedLinks are keys that are read in several steps.
type storedLinks struct {
	keys      []biz.StoredLinks
	temporary map[string][]storedAt // fields to be read by script, by service
	expiring  []int                 // the keys with temporary links only
}

// storedAt is a link of the key with that index.
type storedAt struct {
	index int
	link  biz.LinkResult
}

// add adds a key with its fields.
func (s *storedLinks) add(namespace, uid string, fields map[string]string) {
	key, index, lasting := biz.StoredLinks{Namespace: namespace, UID: uid}, len(s.keys), false
	for service, value := range fields {
		link, expires, err := persistentLink(biz.LinkKey{Namespace: namespace, UID: uid, Service: service}, value, true)
		switch {
		case expires:
			s.temporary[service] = append(s.temporary[service], storedAt{index, biz.LinkResult{Link: link}})
		case err != nil:
			key.Foreign, lasting = append(key.Foreign, service), true
		default:
			key.Links, lasting = append(key.Links, link), true
		}
	}
	if !lasting && len(fields) > 0 {
		s.expiring = append(s.expiring, index)
	}
	s.keys = append(s.keys, key)
}

// addTemporary reads the temporary links. What the script does not read podlink did not write.
func (f *Fleet) addTemporary(ctx context.Context, s *storedLinks) error {
	for service, fields := range s.temporary {
		results, indexes := make([]biz.LinkResult, len(fields)), make([]int, len(fields))
		for i, field := range fields {
			results[i], indexes[i] = field.link, i
		}
		f.links.getByScript(ctx, service, results, indexes)
		for i, result := range results {
			key := &s.keys[fields[i].index]
			switch {
			case errors.Is(result.Err, biz.ErrStoreDataCorrupt):
				key.Foreign = append(key.Foreign, service)
			case result.Err != nil:
				return result.Err
			case result.Link.Exists():
				key.Links = append(key.Links, result.Link)
			}
		}
	}
	return nil
}

// addUnending reads the TTLs of the keys that must have one.
func (f *Fleet) addUnending(ctx context.Context, s *storedLinks) error {
	if len(s.expiring) == 0 {
		return nil
	}
	reads := make([][]any, len(s.expiring))
	for i, index := range s.expiring {
		reads[i] = []any{"pttl", f.keys.links(s.keys[index].Namespace, s.keys[index].UID)}
	}
	values, err := f.runner.ReadAll(ctx, keyLink, reads)
	if err != nil {
		return domainError(err)
	}
	for i, index := range s.expiring {
		if err := values[i].Err; err != nil {
			return domainError(err)
		}
		ttl, _ := values[i].Value.(int64)
		key := &s.keys[index]
		key.Unending = ttl == -1 && len(key.Foreign) == 0
	}
	return nil
}

// Indexed implements biz.KeyScanner.
func (f *Fleet) Indexed(ctx context.Context, key biz.ServiceKey, pod biz.PodID, uids []string) ([]bool, error) {
	known := false
	err := f.members(ctx, keyIndexed, f.keys.indexed(key), func(p *parser, member string) {
		known = known || biz.PodID(p.number(member, 0, math.MaxInt32)) == pod
	})
	if err != nil || !known {
		return make([]bool, len(uids)), err
	}
	args := []any{"hmget", f.keys.index(key, pod)}
	for _, uid := range uids {
		args = append(args, uid)
	}
	value, call, err := f.runner.Read(ctx, keyIndex, args...)
	if err != nil {
		return nil, domainError(err)
	}
	values, _ := value.([]any)
	if len(values) != len(uids) {
		err = fmt.Errorf("HMGET answered %T", value)
	}
	call.Decoded(err)
	if err != nil {
		return nil, err
	}
	indexed := make([]bool, len(uids))
	for i, value := range values {
		indexed[i] = value != nil
	}
	return indexed, nil
}
