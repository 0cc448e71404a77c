package audit

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"hash"
	"strconv"
	"sync"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"

	"podlink/internal/auth"
)

const (
	// maxText bounds a text in a line, in bytes. It is longer than any uid.
	maxText = 512
	// timeFormat is RFC 3339 in UTC with microseconds: the same length each time, so that lines sort.
	timeFormat = "2006-01-02T15:04:05.000000Z"
)

// buffers are for lines.
var buffers = sync.Pool{New: func() any { return new(make([]byte, 0, 512)) }}

// line appends an entry's line. Its keys are those of docs/security.md, and stay as they are: programs read them.
func (l *Log) line(b []byte, e *entry) []byte {
	b = append(b, `{"time":"`...)
	b = e.at.UTC().AppendFormat(b, timeFormat)
	b = append(b, `","msg":"audit","event":"`...)
	b = append(b, events[e.event]...)
	b = append(b, '"')
	if e.trace.IsValid() {
		b = append(b, `,"trace_id":"`...)
		b = hex.AppendEncode(b, e.trace[:])
		b = append(b, '"')
	}
	b = appendField(b, "identity", e.identity.Name)
	b = appendField(b, "identity_pod", e.identity.Pod)
	b = appendField(b, "peer", e.Peer)
	b = appendField(b, "operation", e.Operation)
	if e.right != auth.None {
		b = appendField(b, "right", e.right.String())
	}
	b = appendField(b, "rule", e.rule)
	b = appendField(b, "namespace", e.Namespace)
	b = appendField(b, "service", e.Service)
	b = appendNumber(b, "pod", int64(e.Pod)-1, e.Pod > 0)
	b = l.appendUID(b, e.UID)
	b = appendNumber(b, "previous_pod", int64(e.PreviousPod)-1, e.PreviousPod > 0)
	b = appendNumber(b, "epoch", e.Epoch, e.Epoch > 0)
	b = appendField(b, "outcome", e.Outcome)
	b = appendField(b, "reason", e.Reason)
	b = appendField(b, "detail", e.Detail)
	b = appendNumber(b, "count", int64(e.count), e.count > 0)
	return append(b, "}\n"...)
}

// appendNumber appends a key with its number, if it is set.
func appendNumber(b []byte, key string, n int64, set bool) []byte {
	if !set {
		return b
	}
	return strconv.AppendInt(appendKey(b, key), n, 10)
}

// appendField appends a key with its text, if there is one.
func appendField(b []byte, key, text string) []byte {
	if text == "" {
		return b
	}
	b = append(appendKey(b, key), '"')
	b = appendText(b, text)
	return append(b, '"')
}

func appendKey(b []byte, key string) []byte {
	b = append(b, ',', '"')
	b = append(b, key...)
	return append(b, '"', ':')
}

// appendText appends a text of at most maxText bytes as the inside of a JSON string. What can't be printed is escaped, more than
// JSON asks for: a terminal obeys some control characters, and others reverse the direction of the text.
func appendText(b []byte, text string) []byte {
	cut := len(text) > maxText
	if cut {
		text = text[:maxText]
		for range utf8.UTFMax - 1 { // Not within a character.
			if r, size := utf8.DecodeLastRuneInString(text); r != utf8.RuneError || size != 1 {
				break
			}
			text = text[:len(text)-1]
		}
	}
	for _, r := range text {
		switch {
		case r == '"' || r == '\\':
			b = append(b, '\\', byte(r))
		case r >= ' ' && r < utf8.RuneSelf-1 || r >= utf8.RuneSelf && unicode.IsPrint(r):
			b = utf8.AppendRune(b, r)
		case r > 0xFFFF:
			high, low := utf16.EncodeRune(r)
			b = appendEscape(appendEscape(b, high), low)
		default:
			b = appendEscape(b, r)
		}
	}
	if cut {
		b = append(b, "…"...)
	}
	return b
}

func appendEscape(b []byte, r rune) []byte {
	const digits = "0123456789abcdef"
	return append(b, '\\', 'u', digits[r>>12&15], digits[r>>8&15], digits[r>>4&15], digits[r&15])
}

// appendUID appends a uid, if there is one: as it is, or hashed.
func (l *Log) appendUID(b []byte, uid string) []byte {
	if uid == "" || l.uids == nil {
		return appendField(b, "uid", uid)
	}
	b = append(appendKey(b, "uid"), '"')
	b = l.uids.append(b, uid)
	return append(b, '"')
}

// hashBytes is how much of a hash is written: a chance of one in 2^64 that two of 2^32 uids are one.
const hashBytes = 16

// uidHash hashes uids with HMAC-SHA256. Without the key no uid can be guessed, even where there are few.
type uidHash struct{ hashes sync.Pool }

func newUIDHash(key []byte) *uidHash {
	return &uidHash{sync.Pool{New: func() any { return hmac.New(sha256.New, key) }}}
}

// append appends the hash of a uid in hex.
func (h *uidHash) append(b []byte, uid string) []byte {
	mac := h.hashes.Get().(hash.Hash)
	defer h.hashes.Put(mac)
	mac.Reset()
	var sum [sha256.Size]byte
	_, _ = mac.Write([]byte(uid)) // It never fails.
	return hex.AppendEncode(b, mac.Sum(sum[:0])[:hashBytes])
}
