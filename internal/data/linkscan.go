package data

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"podlink/internal/biz"
	"podlink/internal/rdb"
)

// ScanLinks implements biz.IndexRepo. It reads the hashes of a part of the keys in one pipeline, and then the temporary links by
// script. What podlink did not write is left out.
func (f *Fleet) ScanLinks(ctx context.Context, namespace, token string, n int) ([]biz.Link, string, error) {
	prefix := string(f.keys) + ":link:"
	match := prefix + "*"
	if namespace != "" {
		match = prefix + namespace + ":*" // A namespace has no character that a pattern knows.
	}
	names, next, err := f.scan(ctx, match, token, n)
	if err != nil {
		return nil, "", err
	}
	links, err := f.linksOf(ctx, prefix, names)
	if err != nil {
		return nil, "", err
	}
	return links, next, nil
}

// scan returns the names of a part of the keys that match the pattern.
func (f *Fleet) scan(ctx context.Context, match, token string, n int) (names []string, next string, err error) {
	names, next, err = f.runner.Scan(ctx, keyLink, token, match, n)
	switch {
	case errors.Is(err, rdb.ErrScanToken):
		return nil, "", errPageToken()
	case errors.Is(err, rdb.ErrScanMoved):
		return nil, "", fmt.Errorf("%w: %w", biz.ErrScanMoved, err)
	case err != nil:
		return nil, "", domainError(err)
	}
	return names, next, nil
}

// linksOf returns the live links in the keys.
func (f *Fleet) linksOf(ctx context.Context, prefix string, names []string) ([]biz.Link, error) {
	if len(names) == 0 {
		return nil, nil
	}
	reads := make([][]any, len(names))
	for i, name := range names {
		reads[i] = []any{"hgetall", name}
	}
	values, err := f.runner.ReadAll(ctx, keyLink, reads)
	if err != nil {
		return nil, domainError(err)
	}
	var links []biz.Link
	temporary := make(map[string][]biz.LinkResult) // by service
	for i, name := range names {
		switch err := domainError(values[i].Err); {
		case errors.Is(err, biz.ErrStoreDataCorrupt):
			continue
		case err != nil:
			return nil, err
		}
		namespace, uid, ok := strings.Cut(strings.TrimPrefix(name, prefix), ":")
		if !ok {
			continue
		}
		for service, value := range fieldsOf(values[i].Value) {
			key := biz.LinkKey{Namespace: namespace, UID: uid, Service: service}
			link, expires, err := persistentLink(key, value, true)
			switch {
			case expires:
				temporary[service] = append(temporary[service], biz.LinkResult{Link: link})
			case err == nil:
				links = append(links, link)
			}
		}
	}
	for service, results := range temporary {
		live, err := f.temporaryLinks(ctx, service, results)
		if err != nil {
			return nil, err
		}
		links = append(links, live...)
	}
	return links, nil
}

// temporaryLinks returns the live ones among links of a service.
func (f *Fleet) temporaryLinks(ctx context.Context, service string, results []biz.LinkResult) ([]biz.Link, error) {
	indexes := make([]int, len(results))
	for i := range results {
		indexes[i] = i
	}
	f.links.getByScript(ctx, service, results, indexes)
	var links []biz.Link
	for _, result := range results {
		switch {
		case errors.Is(result.Err, biz.ErrStoreDataCorrupt):
		case result.Err != nil:
			return nil, result.Err
		case result.Link.Exists():
			links = append(links, result.Link)
		}
	}
	return links, nil
}

// fieldsOf returns the fields and values in a reply of HGETALL, which is a map or a list, as the protocol has it.
func fieldsOf(value any) map[string]string {
	fields := make(map[string]string)
	add := func(name, value any) {
		field, _ := name.(string)
		fields[field], _ = value.(string)
	}
	switch reply := value.(type) {
	case map[any]any:
		for name, value := range reply {
			add(name, value)
		}
	case []any:
		for i := 0; i+1 < len(reply); i += 2 {
			add(reply[i], reply[i+1])
		}
	}
	return fields
}
