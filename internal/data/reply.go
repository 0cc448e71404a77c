package data

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"unicode/utf8"

	"podlink/internal/biz"
)

// reply reads what a script answers: a status and what its header says behind it, in one text or in an array.
type reply struct {
	script      string
	text        string // "" when it is an array
	values      []any
	unconfirmed error // why replicas have not confirmed the mutation; nil when they have, or need not
}

// confirmed returns an error for a mutation that replicas have not confirmed; link is what stands after one on a link.
func (r reply) confirmed(link *biz.Link) error {
	if r.unconfirmed == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", r.script, &biz.UnconfirmedError{Link: link, Cause: r.unconfirmed})
}

// malformed is for a reply that the script's header does not name.
func (r reply) malformed() error {
	return fmt.Errorf("%s: reply %q %q is not as its header says", r.script, r.text, r.values)
}

// fields reads values[from:] as texts.
func (r reply) fields(from, count int) ([]string, error) { return texts(r, r.values, from, count) }

// nested reads values[i] as a nested array of count texts; it returns nil when that is empty.
func (r reply) nested(i, count int) ([]string, error) {
	if i >= len(r.values) {
		return nil, r.malformed()
	}
	values, ok := r.values[i].([]any)
	if !ok {
		return nil, r.malformed()
	}
	if len(values) == 0 {
		return nil, nil
	}
	return texts(r, values, 0, count)
}

func texts(r reply, values []any, from, count int) ([]string, error) {
	if len(values) != from+count {
		return nil, r.malformed()
	}
	out := make([]string, count)
	for i := range out {
		text, ok := values[from+i].(string)
		if !ok {
			return nil, r.malformed()
		}
		out[i] = text
	}
	return out, nil
}

func (r reply) status() string {
	if r.text != "" {
		status, _, _ := strings.Cut(r.text, " ")
		return status
	}
	if len(r.values) == 0 {
		return ""
	}
	text, _ := r.values[0].(string)
	return text
}

// parser reads numbers and keeps the first error: what is not one was not written by podlink.
type parser struct{ err error }

func (p *parser) number(text string, least, most int64) int64 {
	n, err := strconv.ParseInt(text, 10, 64)
	if p.err == nil && (err != nil || !canonical(text) || n < least || n > most) {
		p.err = fmt.Errorf("%w: %q is not a number from %d to %d", biz.ErrStoreDataCorrupt, text, least, most)
	}
	return n
}

// canonical tells of a number whether podlink would write it so: without a plus, and without zeros before it.
func canonical(number string) bool {
	digits := strings.TrimPrefix(number, "-")
	return digits[0] != '+' && (digits[0] != '0' || number == "0")
}

// text passes what callers can be sent: every text that podlink writes is valid UTF-8 and not empty.
func (p *parser) text(text string) string {
	if p.err == nil && (text == "" || !utf8.ValidString(text)) {
		p.err = fmt.Errorf("%w: %q is not a text in UTF-8", biz.ErrStoreDataCorrupt, text)
	}
	return text
}

func (p *parser) pod(text string) biz.PodID {
	return biz.PodID(p.number(text, int64(biz.NoPod), math.MaxInt32))
}

func (p *parser) ttl(text string) biz.TTL {
	return biz.TTL(p.number(text, int64(biz.Gone), math.MaxInt32))
}

// maxEpoch is the largest epoch that scripts accept, so that there is always a greater one.
const maxEpoch = 1<<53 - 2

func (p *parser) epoch(text string) biz.Epoch { return biz.Epoch(p.number(text, 0, maxEpoch)) }
