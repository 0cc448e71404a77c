package data

import (
	"context"
	"fmt"
	"math"
	"net/url"
	"strconv"
	"strings"
	"time"

	"podlink/internal/biz"
	"podlink/internal/rdb"
)

// The fields of an entry of a feed. It has one of them; what else it may have was written by a later podlink.
const (
	fieldChanges = "c" // changes, one per line
	fieldGap     = "g" // the reason for a gap
)

// changeKinds are the letters of the kinds of changes, in the order of the constants.
const changeKinds = "-LMPERU"

// noBy is how a line says that it is not known who has asked for the change.
const noBy = "-"

// appendStep returns the step that appends an entry to the feed of the service.
func (f *Fleet) appendStep(key biz.ServiceKey, field, value string) rdb.Step {
	return rdb.Step{Script: scriptAppendFeed, Key: f.keys.feed(key), Args: []any{field, value, f.feedMaxAge}}
}

// encodeChanges returns the changes, each a line "<kind> <pod> <previous> <epoch> <ttl> <claim> <time in ms> <by> <uid>". The uid has
// no control characters.
func encodeChanges(changes []biz.Change) string {
	const length = 80 // of a line, about
	line := make([]byte, 0, length*len(changes))
	for i, c := range changes {
		if i > 0 {
			line = append(line, '\n')
		}
		line = append(line, changeKinds[c.Kind])
		for _, number := range [...]int64{
			int64(c.Link.Pod), int64(c.Previous), int64(c.Link.Epoch), int64(c.Link.TTL), int64(c.Link.Claim), max(0, c.Time.UnixMilli()),
		} {
			line = strconv.AppendInt(append(line, ' '), number, 10)
		}
		line = append(append(line, ' '), encodeBy(c.By)...)
		line = append(append(line, ' '), c.Link.Key.UID...)
	}
	return string(line)
}

func encodeBy(by string) string {
	switch by {
	case "":
		return noBy
	case noBy:
		return "%2D"
	default:
		return url.QueryEscape(by)
	}
}

// decodeChanges returns the changes of an entry. Kinds of a later podlink are left out.
func decodeChanges(key biz.ServiceKey, text string) ([]biz.Change, error) {
	changes := make([]biz.Change, 0, 1+strings.Count(text, "\n"))
	var p parser
	for line := range strings.SplitSeq(text, "\n") {
		kind, rest, _ := strings.Cut(line, " ")
		if len(kind) != 1 || kind[0] < 'A' || kind[0] > 'Z' {
			return nil, fmt.Errorf("%w: a line of a feed begins with no kind of change", biz.ErrStoreDataCorrupt)
		}
		known := strings.Index(changeKinds, kind)
		if known < 0 {
			continue
		}
		change := p.change(key, rest)
		change.Kind = biz.ChangeKind(known)
		changes = append(changes, change)
	}
	if p.err != nil {
		return nil, p.err
	}
	return changes, nil
}

// change parses what follows the kind in a line of a feed.
func (p *parser) change(key biz.ServiceKey, text string) biz.Change {
	const words = 8
	word := strings.SplitN(text, " ", words)
	if len(word) != words {
		p.fail("a change of a link", text)
		return biz.Change{}
	}
	link := biz.Link{
		Key: linkOf(key, p.text(word[7])), Pod: p.pod(word[0]), Epoch: p.epoch(word[2]), TTL: p.ttl(word[3]),
		Claim: biz.Generation(p.number(word[4], 0, maxClaim)),
	}
	return biz.Change{Link: link, Previous: p.pod(word[1]), Time: time.UnixMilli(p.number(word[5], 0, math.MaxInt64)), By: p.by(word[6])}
}

func (p *parser) by(text string) string {
	if text == noBy {
		return ""
	}
	by, err := url.QueryUnescape(text)
	if err != nil {
		p.fail("an escaped name", text)
	}
	return by
}

// feedStart is the position before the first entry of a feed.
const feedStart biz.FeedPosition = "0-0"

// entryID is the id of an entry: the store's time in ms, and the number of the entry, which has no holes.
type entryID struct{ at, number int64 }

// maxEntryNumber is greater than every part of an id that scripts accept.
const maxEntryNumber = 1e15

func (p *parser) entryID(text string) entryID {
	at, number, _ := strings.Cut(text, "-")
	return entryID{p.number(at, 0, maxEntryNumber), p.number(number, 0, maxEntryNumber)}
}

// ReadFeed implements biz.FeedRepo. Numbers of entries that are missing after the position show that some were trimmed. After twice
// the age without an entry the whole feed is gone, and counts as trimmed.
func (f *Fleet) ReadFeed(ctx context.Context, key biz.ServiceKey, after biz.FeedPosition, n int) (biz.FeedPage, error) {
	if after == "" {
		return f.feedEnd(ctx, key)
	}
	var p parser
	last := p.entryID(string(after))
	if p.err != nil {
		return biz.FeedPage{}, &biz.InvalidArgumentError{Field: "resume_token", Detail: "is not one that podlink has returned"}
	}
	from := fmt.Sprintf("%d-%d", last.at, last.number+1)
	value, call, err := f.runner.Read(ctx, keyFeed, "xrange", f.keys.feed(key), from, "+", "count", n)
	if err != nil {
		return biz.FeedPage{}, domainError(err)
	}
	page := biz.FeedPage{Next: after}
	page.Entries, err = decodeEntries(key, value)
	call.Decoded(err)
	if err != nil || len(page.Entries) == 0 {
		return page, err
	}
	page.Next = page.Entries[len(page.Entries)-1].At
	page.Trimmed = p.entryID(string(page.Entries[0].At)).number != last.number+1
	return page, nil
}

// feedEnd returns the position of the feed's end.
func (f *Fleet) feedEnd(ctx context.Context, key biz.ServiceKey) (biz.FeedPage, error) {
	value, call, err := f.runner.Read(ctx, keyFeed, "xrevrange", f.keys.feed(key), "+", "-", "count", 1)
	if err != nil {
		return biz.FeedPage{}, domainError(err)
	}
	entries, err := decodeEntries(key, value)
	call.Decoded(err)
	switch {
	case err != nil:
		return biz.FeedPage{}, err
	case len(entries) == 0:
		return biz.FeedPage{Next: feedStart}, nil
	default:
		return biz.FeedPage{Next: entries[0].At}, nil
	}
}

// decodeEntries decodes the reply of XRANGE.
func decodeEntries(key biz.ServiceKey, value any) ([]biz.FeedEntry, error) {
	list, ok := value.([]any)
	if !ok && value != nil {
		return nil, fmt.Errorf("XRANGE answered %T", value)
	}
	entries := make([]biz.FeedEntry, len(list))
	for i, item := range list {
		pair, ok := item.([]any)
		if !ok || len(pair) != 2 {
			return nil, fmt.Errorf("XRANGE answered an entry of type %T", item)
		}
		id, _ := pair[0].(string)
		fields, _ := pair[1].([]any)
		var p parser
		p.entryID(id)
		if p.err != nil {
			return nil, p.err
		}
		entry, err := decodeEntry(key, fields)
		if err != nil {
			return nil, err
		}
		entry.At = biz.FeedPosition(id)
		entries[i] = entry
	}
	return entries, nil
}

// decodeEntry decodes the fields of an entry. Fields of a later podlink are left out.
func decodeEntry(key biz.ServiceKey, fields []any) (entry biz.FeedEntry, err error) {
	for i := 0; i+1 < len(fields); i += 2 {
		value, _ := fields[i+1].(string)
		switch fields[i] {
		case fieldChanges:
			if entry.Changes, err = decodeChanges(key, value); err != nil {
				return biz.FeedEntry{}, err
			}
		case fieldGap:
			var p parser
			entry.Gap = biz.GapReason(p.text(value))
			if p.err != nil {
				return biz.FeedEntry{}, p.err
			}
		}
	}
	return entry, nil
}
