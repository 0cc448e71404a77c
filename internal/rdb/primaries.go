package rdb

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"slices"
	"strings"
	"sync/atomic"

	"podlink/internal/rdb/info"
)

const (
	// idLength is the number of hexadecimal digits of an id.
	idLength = 16
	// maxIDs is the number of primaries above which one digest names them all.
	maxIDs = 48
)

// primaries is the identity of the store's primaries, as the last check that reached all of them saw it.
type primaries struct{ text atomic.Pointer[string] }

// newPrimaries returns an unknown identity, or the one of the embedded store, which lives as long as the process.
func newPrimaries(embedded bool) *primaries {
	p := new(primaries)
	if embedded {
		text := digest(rand.Text())
		p.text.Store(&text)
	}
	return p
}

// String returns the ids, "" if they are unknown.
func (p *primaries) String() string {
	if text := p.text.Load(); text != nil {
		return *text
	}
	return ""
}

// set replaces the ids and returns their text. One that is "" makes the identity unknown; none leaves it.
func (p *primaries) set(ids []string) string {
	if len(ids) == 0 {
		return p.String()
	}
	text := ""
	if !slices.Contains(ids, "") {
		slices.Sort(ids)
		text = strings.Join(slices.Compact(ids), ",")
		if len(ids) > maxIDs {
			text = digest(text)
		}
	}
	if text != p.String() {
		p.text.Store(&text)
	}
	return text
}

// primaryID returns the id of a primary, from its INFO: another one after a restart or a failover, either of which may have
// lost data. It returns "" if the text has neither id.
func primaryID(text string) string {
	run, replication := info.Field(text, "run_id"), info.Field(text, "master_replid")
	if run == "" && replication == "" {
		return ""
	}
	return digest(run + replication)
}

func digest(text string) string {
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:])[:idLength]
}
