package biz

import (
	"bytes"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"strings"
)

const (
	watchTokenVersion = 1
	maxWatchToken     = 512 // characters
	watchTokenSum     = 16  // bytes
)

// watchToken is where a watch stands in the feed of a service: after a position, and after so many changes of the entry behind it.
//
// Its text is the version, a sum, the number of changes and the position. The sum is over the service and the identity of the store too, so
// a position is used only where it was made, and one that a caller has changed is not used at all.
type watchToken struct {
	after FeedPosition
	skip  int
	sum   []byte // of a parsed token; nil: there was none
}

// feedID is a feed: of a service, in a store.
type feedID struct {
	key   ServiceKey
	store string
}

// parseWatchToken returns the token in a text, which may be of any service and store. Of another version it is like none.
func parseWatchToken(text string) (watchToken, error) {
	if text == "" {
		return watchToken{}, nil
	}
	malformed := &InvalidArgumentError{"resume_token", fmt.Sprintf("must be the token of a message, at most %d characters", maxWatchToken)}
	if len(text) > maxWatchToken || strings.ContainsAny(text, "\r\n") { // The decoder would skip line breaks.
		return watchToken{}, malformed
	}
	raw, err := base64.RawURLEncoding.Strict().DecodeString(text)
	if err != nil {
		return watchToken{}, malformed
	}
	if raw[0] != watchTokenVersion {
		return watchToken{}, nil
	}
	if len(raw) < 1+watchTokenSum {
		return watchToken{}, malformed
	}
	sum, rest := raw[1:1+watchTokenSum], raw[1+watchTokenSum:]
	skip, length := binary.Uvarint(rest)
	if length <= 0 || skip > 1<<31 {
		return watchToken{}, malformed
	}
	return watchToken{after: FeedPosition(rest[length:]), skip: int(skip), sum: sum}, nil
}

// of reports whether the token was made for the feed.
func (t watchToken) of(feed feedID) bool {
	return t.sum != nil && subtle.ConstantTimeCompare(t.sum, t.sumOf(feed)) == 1
}

// text returns the token as a caller gets it.
func (t watchToken) text(feed feedID) string {
	raw := make([]byte, 0, 64)
	raw = append(raw, watchTokenVersion)
	raw = append(raw, t.sumOf(feed)...)
	raw = binary.AppendUvarint(raw, uint64(t.skip))
	raw = append(raw, t.after...)
	return base64.RawURLEncoding.EncodeToString(raw)
}

func (t watchToken) sumOf(feed feedID) []byte {
	var b bytes.Buffer
	for _, part := range []string{feed.store, feed.key.Namespace, feed.key.Service, string(t.after)} {
		b.WriteString(part)
		b.WriteByte(0) // None of them has it.
	}
	b.Write(binary.AppendUvarint(nil, uint64(t.skip)))
	sum := sha256.Sum256(b.Bytes())
	return sum[:watchTokenSum]
}
