package data

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"podlink/internal/biz"
)

// indexToken is where a walk over an index stands. It is in order, or by cursor.
//
// Redis returns a small hash as a whole, and so does the embedded store: the fields are sorted then, and the walk goes on behind the
// last one of a page. Each page is a part of everything that there is, so no entry is missed.
//
// A large hash is walked by a cursor, which covers every entry that stands, whether the hash grows or shrinks. A page that has no room
// for all entries of a call leaves all of them to the next one, which makes the call again. Only a page that has no room even for
// those of the smallest call takes some of them. The token then names these, and the next page leaves them out, wherever the
// repeated call finds them.
//
// When a hash has become large in the middle of a walk, the walk begins again by cursor, and when it has become small, in order: that
// may return an entry twice, and misses none.
type indexToken struct {
	after    string // in order: the last field of the page before; "": none
	byCursor bool
	cursor   uint64
	taken    []string // names of entries that the call at the cursor has returned already
}

const (
	// takenLength is the number of bytes that name an entry: so many that nobody finds two uids with one name.
	takenLength = 16
	// mostTaken is the maximum number of entries that a token names. A bucket of a hash has a few.
	mostTaken = 64
	// maxIndexToken is the maximum length of a token.
	maxIndexToken = 2048
)

// takenName is how a token names a field.
func takenName(field string) string {
	sum := sha256.Sum256([]byte(field))
	return string(sum[:takenLength])
}

// String returns the token's text, which is safe in URLs.
func (t indexToken) String() string {
	text := "a" + t.after
	if t.byCursor {
		text = "c" + strconv.FormatUint(t.cursor, 10) + " " + strings.Join(t.taken, "")
	}
	return base64.RawURLEncoding.EncodeToString([]byte(text))
}

// errPageToken is the error for a token that podlink did not make.
func errPageToken() error {
	return &biz.InvalidArgumentError{Field: "page_token", Detail: "is not one that podlink has returned"}
}

func parseIndexToken(text string) (indexToken, error) {
	if text == "" {
		return indexToken{}, nil
	}
	raw, err := base64.RawURLEncoding.Strict().DecodeString(text)
	if err != nil || len(text) > maxIndexToken || len(raw) < 2 {
		return indexToken{}, errPageToken()
	}
	mode, rest := raw[0], string(raw[1:])
	switch mode {
	case 'a':
		return indexToken{after: rest}, nil
	case 'c':
		number, names, ok := strings.Cut(rest, " ")
		cursor, err := strconv.ParseUint(number, 10, 64)
		if !ok || err != nil || len(names)%takenLength != 0 || len(names) > mostTaken*takenLength {
			return indexToken{}, errPageToken()
		}
		token := indexToken{byCursor: true, cursor: cursor}
		for name := range slices.Chunk([]byte(names), takenLength) {
			token.taken = append(token.taken, string(name))
		}
		return token, nil
	default:
		return indexToken{}, errPageToken()
	}
}

// Entries implements biz.IndexRepo.
func (f *Fleet) Entries(
	ctx context.Context, key biz.ServiceKey, pod biz.PodID, token string, n int,
) ([]biz.IndexEntry, string, error) {
	from, err := parseIndexToken(token)
	if err != nil {
		return nil, "", err
	}
	w := indexWalk{Fleet: f, key: f.keys.index(key, pod), token: from, room: max(n, 1)}
	if err := w.walk(ctx); err != nil {
		return nil, "", err
	}
	if w.done {
		return w.page, "", nil
	}
	return w.page, w.token.String(), nil
}

// indexWalk collects one page of an index.
type indexWalk struct {
	*Fleet
	key   string
	token indexToken
	page  []biz.IndexEntry
	room  int // for so many more entries
	done  bool
}

// field is a field of a hash, with its value.
type field struct{ name, value string }

func (w *indexWalk) walk(ctx context.Context) error {
	enough := w.room / 4 // A page with less room is full.
	count := w.buckets()
	for !w.done && w.room > enough {
		found, next, err := w.scan(ctx, w.token.cursor, count)
		if err != nil {
			return err
		}
		if w.token.cursor == 0 && next == 0 {
			return w.inOrder(found)
		}
		if len(w.token.taken) > 0 {
			found = slices.DeleteFunc(found, func(one field) bool { return slices.Contains(w.token.taken, takenName(one.name)) })
		}
		switch {
		case len(found) <= w.room:
			if err := w.take(found); err != nil {
				return err
			}
			w.token, w.done = indexToken{byCursor: true, cursor: next}, next == 0
			count = w.buckets()
		case len(w.page) > 0:
			return nil
		case count > 1:
			count = max(1, count*w.room/(2*len(found)))
		default:
			return w.takeSome(ctx, found)
		}
	}
	return nil
}

// buckets returns how many buckets of a hash there is room for: they have up to one entry each, on average.
func (w *indexWalk) buckets() int { return max(1, w.room*7/8) }

// inOrder takes the next entries of a hash that was returned as a whole.
func (w *indexWalk) inOrder(all []field) error {
	slices.SortFunc(all, func(a, b field) int { return strings.Compare(a.name, b.name) })
	all = slices.DeleteFunc(all, func(one field) bool { return one.name <= w.token.after })
	w.done = len(all) <= w.room
	if !w.done {
		all = all[:w.room]
		w.token = indexToken{after: all[len(all)-1].name}
	}
	return w.take(all)
}

// takeSome takes as many entries of the smallest call as there is room for. They are too many either because the hash is returned as
// a whole now, or because they share a bucket.
func (w *indexWalk) takeSome(ctx context.Context, found []field) error {
	if w.token.cursor != 0 {
		all, next, err := w.scan(ctx, 0, 1)
		if err != nil {
			return err
		}
		if next == 0 {
			w.token = indexToken{}
			return w.inOrder(all)
		}
	}
	w.token.byCursor, w.token.after = true, ""
	if len(w.token.taken) == mostTaken {
		return errors.New("a bucket of an index has too many entries")
	}
	some := found[:min(w.room, mostTaken-len(w.token.taken))]
	for _, one := range some {
		w.token.taken = append(w.token.taken, takenName(one.name))
	}
	return w.take(some)
}

// take adds entries to the page.
func (w *indexWalk) take(found []field) error {
	var p parser
	for _, one := range found {
		w.page = append(w.page, p.indexEntry(one.name, one.value))
	}
	w.room -= len(found)
	return p.err
}

// scan makes one call of HSCAN. It returns the fields, each once, and the next cursor.
func (w *indexWalk) scan(ctx context.Context, cursor uint64, count int) ([]field, uint64, error) {
	value, call, err := w.runner.Read(ctx, keyIndex, "hscan", w.key, strconv.FormatUint(cursor, 10), "count", count)
	if err != nil {
		return nil, 0, domainError(err)
	}
	found, next, err := decodeHScan(value)
	call.Decoded(err)
	return found, next, err
}

func decodeHScan(value any) ([]field, uint64, error) {
	reply, _ := value.([]any)
	if len(reply) != 2 {
		return nil, 0, fmt.Errorf("HSCAN answered %T", value)
	}
	cursor, _ := reply[0].(string)
	next, err := strconv.ParseUint(cursor, 10, 64)
	if err != nil {
		return nil, 0, fmt.Errorf("HSCAN answered the cursor %q", cursor)
	}
	list, _ := reply[1].([]any)
	var found []field
	seen := make(map[string]bool, len(list)/2)
	for i := 0; i+1 < len(list); i += 2 {
		name, _ := list[i].(string)
		text, _ := list[i+1].(string)
		if !seen[name] {
			seen[name] = true
			found = append(found, field{name, text})
		}
	}
	return found, next, nil
}
