package auth

import (
	"bytes"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"regexp"
	"time"

	"go.yaml.in/yaml/v3"
)

// Bounds of the tokens file and of a static token.
const (
	tokensLimit   = 1 << 20
	tokensPerName = 2  // the one in use, and the next while callers change over
	minToken      = 32 // 128 bits as hexadecimal digits: a shorter one could be guessed from its hash
)

// token is an entry of the tokens file.
type token struct {
	identity Identity
	sum      [sha256.Size]byte
	notAfter time.Time
}

// tokens are the entries of a tokens file by their hashes. A caller can't choose a token whose hash begins as another's, so that
// the time of the lookup says nothing; the whole hash is compared in constant time.
type tokens struct {
	entries map[[8]byte][]token
	count   int
}

// find returns the entry of a token's hash.
func (t *tokens) find(sum [sha256.Size]byte) (token, bool) {
	var found token
	var ok bool
	for _, entry := range t.entries[[8]byte(sum[:8])] {
		if subtle.ConstantTimeCompare(entry.sum[:], sum[:]) == 1 {
			found, ok = entry, true
		}
	}
	return found, ok
}

// has reports whether there is a token of that caller.
func (t *tokens) has(name string) bool {
	for _, entries := range t.entries {
		for i := range entries {
			if entries[i].identity.Name == name {
				return true
			}
		}
	}
	return false
}

var (
	tokenNamePattern = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$`)
	podPattern       = regexp.MustCompile(`^[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?$`)
	yamlLinePattern  = regexp.MustCompile(`line (\d+)`)
)

// errTokens are the errors of a tokens file. They name an entry by its place, never by its content, which could be a token that
// was put in the wrong place.
var errTokens = errors.New("must be a list of name, sha256, pod and not_after")

// parseTokens reads a tokens file. A file without a list, as one that is being written, is an error; an empty list revokes all.
func parseTokens(content []byte) (*tokens, error) {
	var list []struct {
		Name     string `yaml:"name"`
		SHA256   string `yaml:"sha256"`
		Pod      string `yaml:"pod"`
		NotAfter string `yaml:"not_after"`
	}
	decoder := yaml.NewDecoder(bytes.NewReader(content))
	decoder.KnownFields(true)
	if err := decoder.Decode(&list); err != nil {
		if line := yamlLinePattern.FindString(err.Error()); line != "" {
			return nil, fmt.Errorf("%s: %w", line, errTokens)
		}
		return nil, errTokens
	}
	if list == nil || !errors.Is(decoder.Decode(new(yaml.Node)), io.EOF) {
		return nil, errTokens
	}
	t := &tokens{entries: make(map[[8]byte][]token, len(list)), count: len(list)}
	pods := make(map[string][]string) // the pods of each name's entries
	for i, c := range list {
		entry := token{identity: Identity{Name: "token:" + c.Name, Pod: c.Pod}, notAfter: notAfter(c.NotAfter)}
		sum, err := hex.DecodeString(c.SHA256)
		copy(entry.sum[:], sum)
		_, taken := t.find(entry.sum)
		pods[c.Name] = append(pods[c.Name], c.Pod)
		switch {
		case !tokenNamePattern.MatchString(c.Name):
			return nil, fmt.Errorf("[%d].name must be 1 to 63 characters A-Z a-z 0-9 . _ -", i)
		case err != nil || len(sum) != sha256.Size:
			return nil, fmt.Errorf("[%d].sha256 must be 64 hexadecimal digits: printf %%s \"$TOKEN\" | sha256sum", i)
		case entry.sum == sha256.Sum256(nil):
			return nil, fmt.Errorf("[%d].sha256 is the hash of nothing", i)
		case taken:
			return nil, fmt.Errorf("[%d].sha256 is that of an entry above", i)
		case c.Pod != "" && !podPattern.MatchString(c.Pod):
			return nil, fmt.Errorf("[%d].pod must be the name of a pod, as in chat-2", i)
		case entry.notAfter.IsZero():
			return nil, fmt.Errorf("[%d].not_after must be a time, as in 2027-01-31 or 2027-01-31T08:00:00Z", i)
		case len(pods[c.Name]) > tokensPerName:
			return nil, fmt.Errorf("[%d].name has %d entries above: the token in use and the next are enough", i, tokensPerName)
		case pods[c.Name][0] != c.Pod:
			return nil, fmt.Errorf("[%d].pod must be that of the other entry of its name", i)
		}
		prefix := [8]byte(entry.sum[:8])
		t.entries[prefix] = append(t.entries[prefix], entry)
	}
	return t, nil
}

// notAfter returns the end of a token, the zero time if it is none. A day ends a token as it begins, in UTC.
func notAfter(text string) time.Time {
	if day, err := time.Parse(time.DateOnly, text); err == nil {
		return day
	}
	end, _ := time.Parse(time.RFC3339, text)
	return end
}
