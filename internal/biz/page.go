package biz

import (
	"encoding/base64"
	"fmt"
	"hash/fnv"
	"strconv"
	"strings"
)

const (
	defaultPageSize = 100
	maxPageSize     = 1000
	maxPageTokenLen = 4 << 10
)

// Page says which part of a list to return.
type Page struct {
	Size  int32  // 1 … 1000; 0: 100
	Token string // of the page before; "": the first page
}

func (p Page) validate() error {
	if p.Size < 0 || p.Size > maxPageSize {
		return &InvalidArgumentError{"page_size", fmt.Sprintf("must be 0 to %d", maxPageSize)}
	}
	if len(p.Token) > maxPageTokenLen {
		return invalidPageToken()
	}
	return nil
}

func (p Page) size() int {
	if p.Size == 0 {
		return defaultPageSize
	}
	return int(p.Size)
}

func invalidPageToken() error {
	return &InvalidArgumentError{"page_token", "must be the next_page_token of the page before, in the same list"}
}

// validateNamed checks the page of a list of names, and returns the name after which it begins, "" for the first page.
func (p Page) validateNamed() (after string, err error) {
	if err := p.validate(); err != nil || p.Token == "" {
		return "", err
	}
	name, err := base64.RawURLEncoding.Strict().DecodeString(p.Token)
	if err != nil || !isName(string(name)) {
		return "", invalidPageToken()
	}
	return string(name), nil
}

// pageOf returns at most size of the items, which are sorted by their names, after the name, and the token of the next page.
func pageOf[T any](items []T, name func(T) string, after string, size int) (page []T, next string) {
	for len(items) > 0 && name(items[0]) <= after {
		items = items[1:]
	}
	if len(items) <= size {
		return items, ""
	}
	return items[:size], base64.RawURLEncoding.EncodeToString([]byte(name(items[size-1])))
}

// podWalk is the state of a walk over the links to a pod, which the page token carries from page to page.
type podWalk struct {
	complete bool   // nothing was missing in the index until now
	gaps     int64  // that the census had covered when the walk began; 0: not complete
	at       string // where the repo goes on; "": the walk begins
}

// token returns the token of the next page. It belongs to the list of one pod: in that of another one the walk would be claimed to
// be complete.
func (w podWalk) token(key ServiceKey, pod PodID) string {
	gaps := int64(0)
	if w.complete {
		gaps = w.gaps
	}
	list := fnv.New64a()
	fmt.Fprintf(list, "%s:%s:%d", key.Namespace, key.Service, pod)
	return strconv.FormatInt(gaps, 36) + "." + strconv.FormatUint(list.Sum64(), 36) + "." + w.at
}

// parsePodWalk returns the walk that a token carries.
func parsePodWalk(token string, key ServiceKey, pod PodID) (podWalk, error) {
	if token == "" {
		return podWalk{}, nil
	}
	parts := strings.SplitN(token, ".", 3)
	gaps, err := strconv.ParseInt(parts[0], 36, 64)
	if err != nil || gaps < 0 || len(parts) != 3 || parts[2] == "" {
		return podWalk{}, invalidPageToken()
	}
	walk := podWalk{complete: gaps > 0, gaps: gaps, at: parts[2]}
	if walk.token(key, pod) != token {
		return podWalk{}, invalidPageToken()
	}
	return walk, nil
}

// tokenOfJobs returns the token of the page of a namespace's jobs that begins after the position.
func tokenOfJobs(namespace, at string) string {
	list := fnv.New64a()
	fmt.Fprintf(list, "jobs of %s", namespace)
	return strconv.FormatUint(list.Sum64(), 36) + "." + at
}

// parseTokenOfJobs returns the position that a token carries, "" for the first page.
func parseTokenOfJobs(namespace, token string) (at string, _ error) {
	if token == "" {
		return "", nil
	}
	if _, at, _ = strings.Cut(token, "."); !isName(at) || tokenOfJobs(namespace, at) != token {
		return "", invalidPageToken()
	}
	return at, nil
}
