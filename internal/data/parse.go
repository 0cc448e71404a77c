package data

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"unicode/utf8"

	"podlink/internal/biz"
)

// parser parses values of the store and keeps the first error: a malformed value was not written by podlink.
type parser struct{ err error }

func (p *parser) number(text string, least, most int64) int64 {
	n, err := strconv.ParseInt(text, 10, 64)
	if p.err == nil && (err != nil || !canonical(text) || n < least || n > most) {
		p.err = fmt.Errorf("%w: %q is not a number from %d to %d", biz.ErrStoreDataCorrupt, text, least, most)
	}
	return n
}

// canonical reports whether the number is in podlink's format: without a plus sign or leading zeros.
func canonical(number string) bool {
	digits := strings.TrimPrefix(number, "-")
	return digits[0] != '+' && (digits[0] != '0' || number == "0")
}

// text checks that the text is not empty and valid UTF-8, as every text that podlink writes.
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

const maxEpoch = int64(biz.MaxEpoch)

func (p *parser) epoch(text string) biz.Epoch { return biz.Epoch(p.number(text, 0, maxEpoch)) }

// maxClaim is the largest claim that scripts accept.
const maxClaim = 1<<52 - 1

func (p *parser) claim(text string) biz.Generation {
	return biz.Generation(p.number(text, 1, maxClaim))
}
