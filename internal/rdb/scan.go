package rdb

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/redis/go-redis/v9"

	"podlink/internal/rdb/info"
)

var (
	// ErrScanToken is the error of Scan for a token that it did not return.
	ErrScanToken = errors.New("the token of a walk over all keys is malformed")
	// ErrScanMoved is the error of Scan when keys may have moved past the walk: a primary has restarted or failed over, or slots of a
	// cluster move or have moved.
	ErrScanMoved = errors.New("the store has changed during the walk over all keys")
)

// scanToken is where a walk over all keys stands.
type scanToken struct {
	store  string // digest of the primaries and, in a cluster, of the owners of the slots
	node   int    // the primary that is walked, by address
	server string // its id; "": not known
	cursor uint64
}

// String returns the token's text, which is safe in URLs.
func (t scanToken) String() string {
	text := fmt.Sprintf("%s %d %s %d", t.store, t.node, t.server, t.cursor)
	return base64.RawURLEncoding.EncodeToString([]byte(text))
}

func parseScanToken(text string) (scanToken, error) {
	const maxLength, words = 256, 4
	raw, err := base64.RawURLEncoding.Strict().DecodeString(text)
	word := strings.Split(string(raw), " ")
	if err != nil || len(text) > maxLength || len(word) != words {
		return scanToken{}, ErrScanToken
	}
	node, err := strconv.ParseUint(word[1], 10, 16)
	if err != nil {
		return scanToken{}, ErrScanToken
	}
	cursor, err := strconv.ParseUint(word[3], 10, 64)
	if err != nil {
		return scanToken{}, ErrScanToken
	}
	return scanToken{store: word[0], node: int(node), server: word[2], cursor: cursor}, nil
}

// Scan returns the keys that match in a part of the store, about count keys long, and the token of the next part, "" after the last
// one; an empty token begins a walk. One primary is walked after the other. A key that exists during the whole walk is in at least one
// part, unless a part fails with ErrScanMoved. kind is the kind of the keys.
func (r *Runner) Scan(ctx context.Context, kind, token, match string, count int) (keys []string, next string, err error) {
	call := r.metrics.begin(ctx, commandRead, kind)
	keys, next, err = r.scan(ctx, token, match, count)
	if err != nil && !errors.Is(err, ErrScanToken) && !errors.Is(err, ErrScanMoved) {
		err = readError(ctx, err)
	}
	call.end(err)
	return keys, next, err
}

func (r *Runner) scan(ctx context.Context, token, match string, count int) ([]string, string, error) {
	var at scanToken
	var err error
	if token != "" {
		if at, err = parseScanToken(token); err != nil {
			return nil, "", err
		}
	}
	nodes, err := r.client.sortedPrimaries(ctx)
	if err != nil {
		return nil, "", err
	}
	if at.node >= len(nodes) {
		return nil, "", ErrScanMoved
	}
	part, err := r.scanPart(ctx, nodes[at.node], at.cursor, match, count)
	if err != nil {
		return nil, "", err
	}
	store := part.owners + " " + r.Primaries()
	for _, node := range nodes {
		store += " " + node.Options().Addr
	}
	store = digest(store)
	if token != "" && at.store != store || at.cursor != 0 && at.server != part.server {
		return nil, "", ErrScanMoved
	}
	at = scanToken{store: store, node: at.node, server: part.server, cursor: part.cursor}
	if at.cursor == 0 {
		at.node, at.server = at.node+1, ""
	}
	if at.node == len(nodes) {
		return part.keys, "", nil
	}
	return part.keys, at.String(), nil
}

// sortedPrimaries returns the primaries by address.
func (c *client) sortedPrimaries(ctx context.Context) ([]*redis.Client, error) {
	var mu sync.Mutex
	var nodes []*redis.Client
	err := c.eachPrimary(ctx, func(_ context.Context, node *redis.Client) error {
		mu.Lock()
		defer mu.Unlock()
		nodes = append(nodes, node)
		return nil
	})
	slices.SortFunc(nodes, func(a, b *redis.Client) int { return strings.Compare(a.Options().Addr, b.Options().Addr) })
	return nodes, err
}

// scannedPart is what a primary says about a part of its keys and about itself, at one time.
type scannedPart struct {
	keys   []string
	cursor uint64
	server string // its id
	owners string // of the slots
}

// scanPart walks a part of the keys of a primary. It asks in the same round trip who the server is, and whether slots move: a key that
// moves from one node to another may be on neither when the walk is there.
func (r *Runner) scanPart(ctx context.Context, node *redis.Client, cursor uint64, match string, count int) (scannedPart, error) {
	var sections [2]*redis.StringCmd
	var nodes *redis.StringCmd
	var scanned *redis.ScanCmd
	_, failure := node.Pipelined(ctx, func(pipe redis.Pipeliner) error {
		if !r.client.embedded {
			sections[0], sections[1] = pipe.Info(ctx, "replication"), pipe.Info(ctx, "server")
		}
		if r.client.cluster != nil {
			nodes = pipe.ClusterNodes(ctx)
		}
		scanned = pipe.Scan(ctx, cursor, match, int64(count))
		return nil
	})
	keys, next, err := scanned.Result()
	if err == nil && failure != nil && replyError(failure) == nil {
		err = failure // The handshake of a new connection was refused: no command has an error.
	}
	if err != nil {
		return scannedPart{}, err
	}
	part := scannedPart{keys: keys, cursor: next}
	if !r.client.embedded {
		if part.server, err = serverOf(sections[:]); err != nil {
			return scannedPart{}, err
		}
	}
	if nodes != nil {
		if part.owners, err = slotOwners(nodes); err != nil {
			return scannedPart{}, err
		}
	}
	return part, nil
}

// serverOf returns the id of a primary, "" if it denies INFO.
func serverOf(sections []*redis.StringCmd) (string, error) {
	text := ""
	for _, section := range sections {
		switch err := section.Err(); {
		case denied(err):
			return "", nil
		case err != nil:
			return "", err
		}
		text += section.Val() + "\r\n"
	}
	if info.Field(text, "role") != "master" {
		return "", ErrScanMoved
	}
	return primaryID(text), nil
}

// slotOwners returns which node has which slots, as a node of the cluster sees it. It fails while slots of this node move.
func slotOwners(nodes *redis.StringCmd) (string, error) {
	text, err := nodes.Result()
	if err != nil {
		return "", err
	}
	const id, firstSlot = 0, 8
	var owners []string
	for line := range strings.Lines(text) {
		words := strings.Fields(line)
		if len(words) <= firstSlot {
			continue // A node without slots.
		}
		if slices.ContainsFunc(words[firstSlot:], func(slots string) bool { return slots[0] == '[' }) {
			return "", ErrScanMoved
		}
		owners = append(owners, words[id]+" "+strings.Join(words[firstSlot:], " "))
	}
	slices.Sort(owners)
	return strings.Join(owners, "\n"), nil
}
