package auth

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	regular "podlink/internal/file"
)

// TestParseTokens: what a tokens file may have. No error repeats anything of it, for it could be a token in the wrong place.
func TestParseTokens(t *testing.T) {
	const secret = "s3cr3t-t0ken-in-the-wr0ng-place"
	sum, other, third := digest("a"), digest("b"), digest("c")
	line := func(format string, args ...any) string { return fmt.Sprintf("- {"+format+"}\n", args...) }
	good := line("name: bob, sha256: %s, not_after: 2027-01-31T00:00:00Z", sum)
	for name, row := range map[string]struct {
		content string
		count   int
		err     string
	}{
		"one":                   {content: good, count: 1},
		"with a pod":            {content: line("name: chat-2, sha256: %s, pod: chat-2, not_after: 2027-01-31T00:00:00Z", sum), count: 1},
		"a day":                 {content: line("name: bob, sha256: %s, not_after: 2027-01-31", sum), count: 1},
		"a time in quotes":      {content: line("name: bob, sha256: %s, not_after: \"2027-01-31T00:00:00+01:00\"", sum), count: 1},
		"upper-case digits":     {content: line("name: bob, sha256: %s, not_after: 2027-01-31", strings.ToUpper(sum)), count: 1},
		"two of a name":         {content: good + line("name: bob, sha256: %s, not_after: 2027-02-28", other), count: 2},
		"one that has expired":  {content: line("name: bob, sha256: %s, not_after: 2020-01-01", sum), count: 1},
		"none":                  {content: "[]\n", count: 0},
		"with a comment":        {content: "# Of the gateways.\n" + good, count: 1},
		"empty":                 {content: "", err: "must be a list"},
		"a comment only":        {content: "# " + secret, err: "must be a list"},
		"null":                  {content: "null", err: "must be a list"},
		"two documents":         {content: good + "---\n" + good, err: "must be a list"},
		"an object":             {content: "name: " + secret, err: "must be a list"},
		"a text":                {content: secret, err: "must be a list"},
		"a list of texts":       {content: "- " + secret, err: "line 1: must be a list"},
		"no YAML":               {content: "- {" + secret, err: "must be a list"},
		"an unknown key":        {content: good + line("%s: x", secret), err: "line 2: must be a list"},
		"the token itself":      {content: line("name: bob, token: %s", secret), err: "line 1: must be a list"},
		"a key twice":           {content: line("name: bob, name: %s, sha256: %s, not_after: 2027-01-31", secret, sum), err: "line 1"},
		"a time that is none":   {content: line("name: bob, sha256: %s, not_after: %s", sum, secret), err: "[0].not_after"},
		"no name":               {content: line("sha256: %s, not_after: 2027-01-31", sum), err: "[0].name"},
		"name with a separator": {content: line("name: 'a:%s', sha256: %s, not_after: 2027-01-31", secret, sum), err: "[0].name"},
		"name with a star":      {content: line("name: 'a*', sha256: %s, not_after: 2027-01-31", sum), err: "[0].name"},
		"name too long":         {content: line("name: %s, sha256: %s, not_after: 2027-01-31", strings.Repeat("a", 64), sum), err: "[0].name"},
		"no hash":               {content: line("name: bob, not_after: 2027-01-31"), err: "[0].sha256"},
		"hash too short":        {content: line("name: bob, sha256: %s, not_after: 2027-01-31", sum[2:]), err: "[0].sha256"},
		"hash too long":         {content: line("name: bob, sha256: %s00, not_after: 2027-01-31", sum), err: "[0].sha256"},
		"hash of no digits":     {content: line("name: bob, sha256: %s, not_after: 2027-01-31", secret), err: "[0].sha256"},
		"hash of nothing":       {content: line("name: bob, sha256: %s, not_after: 2027-01-31", digest("")), err: "[0].sha256 is the hash of nothing"},
		"the same hash":         {content: good + line("name: eve, sha256: %s, not_after: 2027-01-31", sum), err: "[1].sha256 is that of an entry above"},
		"no end":                {content: line("name: bob, sha256: %s", sum), err: "[0].not_after"},
		"a pod that is none":    {content: line("name: bob, sha256: %s, pod: 'a/%s', not_after: 2027-01-31", sum, secret), err: "[0].pod"},
		"two pods of a name": {content: line("name: chat, sha256: %s, pod: chat-1, not_after: 2027-01-31", sum) +
			line("name: chat, sha256: %s, pod: chat-2, not_after: 2027-01-31", other), err: "[1].pod"},
		"three of a name": {content: good + line("name: bob, sha256: %s, not_after: 2027-01-31", other) +
			line("name: bob, sha256: %s, not_after: 2027-01-31", third), err: "[2].name has 2 entries above"},
		"aliases that grow": {content: "- &a {name: bob}\n- &b [*a,*a,*a,*a,*a,*a,*a,*a,*a]\n- &c [*b,*b,*b,*b,*b,*b,*b,*b,*b]\n- [*c,*c,*c,*c,*c,*c]\n", err: "must be a list"},
	} {
		t.Run(name, func(t *testing.T) {
			parsed, err := parseTokens([]byte(row.content))
			if row.err != "" {
				require.ErrorContains(t, err, row.err)
				require.NotContains(t, err.Error(), secret[:6])
				return
			}
			require.NoError(t, err)
			require.Equal(t, row.count, parsed.count)
		})
	}
}

// TestStaticTokens: which tokens of a file count, and for whom.
func TestStaticTokens(t *testing.T) {
	f := newFixture(t)
	bob, next, pod, ended := staticToken("bob"), staticToken("next"), staticToken("pod"), staticToken("ended")
	dots := "v1.abcdefghijklmnopqrstuvwxyz." + staticToken("dots")
	writeFile(t, f.tokens, entry("bob", bob, begin.Add(time.Hour))+entry("bob", next, begin.Add(2*time.Hour))+
		strings.Replace(entry("chat-2", pod, begin.Add(time.Hour)), "not_after", "pod: chat-2, not_after", 1)+
		entry("ended", ended, begin)+entry("dots", dots, begin.Add(time.Hour))+entry("short", "letmein", begin.Add(time.Hour)))
	require.NoError(t, f.tokensFile.read())
	for name, row := range map[string]struct {
		token string
		cause Cause
		want  Identity
	}{
		"bob":                 {token: bob, want: Identity{Name: "token:bob"}},
		"bob's next":          {token: next, want: Identity{Name: "token:bob"}},
		"of a pod":            {token: pod, want: Identity{Name: "token:chat-2", Pod: "chat-2"}},
		"with dots, as a JWT": {token: dots, want: Identity{Name: "token:dots"}},
		"ended":               {token: ended, cause: Expired},
		"too short":           {token: "letmein", cause: TooShort},
		"unknown":             {token: staticToken("eve"), cause: UnknownToken},
		"another case":        {token: strings.ToUpper(bob), cause: UnknownToken},
		"one more character":  {token: bob + "0", cause: UnknownToken},
		"one less":            {token: bob[:63], cause: UnknownToken},
		"its hash":            {token: digest(bob), cause: UnknownToken},
		"its name":            {token: "bob", cause: UnknownToken},
	} {
		t.Run(name, func(t *testing.T) {
			for range 2 {
				got, err := f.call(t, row.token)
				if row.cause != "" {
					requireCause(t, row.cause, err)
					continue
				}
				require.NoError(t, err)
				require.Equal(t, row.want, got)
			}
		})
	}
	f.clock.advance(time.Hour)
	_, err := f.call(t, bob)
	requireCause(t, Expired, err)
	_, err = f.call(t, next)
	require.NoError(t, err)
}

// TestTokensReload: a file whose content changes counts from then on, for tokens that are kept too; a broken one changes nothing.
func TestTokensReload(t *testing.T) {
	f := newFixture(t)
	bob, eve := staticToken("bob"), staticToken("eve")
	known := func(token string) bool {
		_, err := f.call(t, token)
		return err == nil
	}
	check := func(bobKnown, eveKnown, failing bool, failures uint64) {
		t.Helper()
		err := f.tokensFile.read()
		require.Equal(t, failing, err != nil, "%v", err)
		require.Equal(t, bobKnown, known(bob))
		require.Equal(t, eveKnown, known(eve))
		require.Equal(t, failing, f.tokensFile.Failing())
		require.Equal(t, failures, f.tokensFile.Failures())
	}
	check(true, false, false, 0)
	kept := f.tokensGeneration.Load()
	check(true, false, false, 0)
	require.Equal(t, kept, f.tokensGeneration.Load(), "the same content must not empty the cache")

	writeFile(t, f.tokens, entry("bob", bob, begin.Add(time.Hour))+"- {broken")
	check(true, false, true, 1)
	check(true, false, true, 2)
	require.Equal(t, 1, strings.Count(f.log.text(), "must be a list"), "the same failure is reported once")
	require.NoError(t, os.Remove(f.tokens))
	check(true, false, true, 3)
	writeFile(t, f.tokens, "")
	check(true, false, true, 4)
	writeFile(t, f.tokens, strings.Repeat("# Long.\n", tokensLimit/8+1))
	check(true, false, true, 5)
	writeFile(t, f.tokens, entry("bob", bob, begin.Add(time.Hour)))
	check(true, false, false, 5)
	require.True(t, strings.HasSuffix(f.log.text(), "auth.tokens_file <nil>"), "the end of the failure is reported")

	writeFile(t, f.tokens, entry("bob", bob, begin.Add(time.Hour))+entry("eve", eve, begin.Add(time.Hour)))
	check(true, true, false, 5)
	writeFile(t, f.tokens, entry("eve", eve, begin.Add(time.Hour)))
	check(false, true, false, 5)
	writeFile(t, f.tokens, "[]")
	check(false, false, false, 5)
	for _, secret := range []string{bob, eve, digest(bob), "broken"} {
		require.NotContains(t, f.log.text(), secret)
	}
}

// TestTokensFileOfAnotherKind: opening a FIFO would hold the start.
func TestTokensFileOfAnotherKind(t *testing.T) {
	_, err := New(Options{TokensFile: t.TempDir()})
	require.ErrorContains(t, err, "auth.tokens_file: ")
	require.ErrorIs(t, err, regular.ErrNotRegular)
}
