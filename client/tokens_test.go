package client

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// issuer gives out tokens, and counts how often it is asked.
type issuer struct {
	asked atomic.Int32
	give  atomic.Pointer[func(ctx context.Context) (string, error)]
}

func newIssuer(give func(context.Context) (string, error)) *issuer {
	i := new(issuer)
	i.give.Store(&give)
	return i
}

func (i *issuer) gives(token string) {
	give := func(context.Context) (string, error) { return token, nil }
	i.give.Store(&give)
}

func (i *issuer) fails(err error) {
	give := func(context.Context) (string, error) { return "", err }
	i.give.Store(&give)
}

func (i *issuer) read(ctx context.Context) (string, error) {
	i.asked.Add(1)
	return (*i.give.Load())(ctx)
}

func constant(token string) func(context.Context) (string, error) {
	return func(context.Context) (string, error) { return token, nil }
}

// withTokens runs the test in virtual time.
func withTokens(t *testing.T, from *issuer, test func(t *testing.T, tokens *tokens)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		tokens := newTokens(from.read, DefaultTimeout)
		defer tokens.shut()
		test(t, tokens)
	})
}

func requireToken(t *testing.T, want string, from *tokens) {
	t.Helper()
	got, err := from.get(t.Context())
	require.NoError(t, err)
	require.Equal(t, want, got)
}

// TestTokenIsReadForAll: at most once a second, however many calls need it.
func TestTokenIsReadForAll(t *testing.T) {
	from := newIssuer(func(context.Context) (string, error) { time.Sleep(time.Millisecond); return "one\n", nil })
	withTokens(t, from, func(t *testing.T, tokens *tokens) {
		var calls sync.WaitGroup
		for range 100 {
			calls.Go(func() { requireToken(t, "one", tokens) })
		}
		calls.Wait()
		require.EqualValues(t, 1, from.asked.Load())
		from.gives("two")
		time.Sleep(tokenAge - 2*time.Millisecond)
		requireToken(t, "one", tokens)
		time.Sleep(2 * time.Millisecond)
		requireToken(t, "two", tokens)
		require.EqualValues(t, 2, from.asked.Load())
	})
}

// TestTokenThatCannotBeRead: the last one is sent, and a call waits only for the first one.
func TestTokenThatCannotBeRead(t *testing.T) {
	missing := errors.New("missing")
	for name, row := range map[string]struct {
		give   func(ctx context.Context) (string, error)
		begins error         // what the first call gets
		within time.Duration // that later calls take at most
	}{
		"missing": {func(context.Context) (string, error) { return "", missing }, missing, 0},
		"hangs": {
			func(ctx context.Context) (string, error) { <-ctx.Done(); return "", ctx.Err() }, context.DeadlineExceeded, maxTokenWait,
		},
		"panics": {func(context.Context) (string, error) { panic(missing) }, errors.New("panic: missing"), 0},
	} {
		t.Run(name, func(t *testing.T) {
			from := newIssuer(row.give)
			withTokens(t, from, func(t *testing.T, tokens *tokens) {
				_, err := tokens.get(t.Context())
				require.ErrorContains(t, err, row.begins.Error())
				from.gives("good")
				requireToken(t, "good", tokens)
				from.give.Store(&row.give)
				for range 3 {
					time.Sleep(tokenAge)
					begun := time.Now()
					requireToken(t, "good", tokens)
					require.LessOrEqual(t, time.Since(begun), row.within)
				}
				begun := time.Now()
				for range 10 { // They wait together.
					requireToken(t, "good", tokens)
				}
				require.LessOrEqual(t, time.Since(begun), row.within)
			})
		})
	}
}

// TestTokenAfterARefusal is another one, or there is none. It is asked for once, while refusals go on too.
func TestTokenAfterARefusal(t *testing.T) {
	from := newIssuer(constant("one"))
	withTokens(t, from, func(t *testing.T, tokens *tokens) {
		requireToken(t, "one", tokens)
		from.gives("two")
		for range 3 { // Two other calls had sent the first one as well.
			got, ok := tokens.renew(t.Context(), "one")
			require.True(t, ok)
			require.Equal(t, "two", got)
		}
		require.EqualValues(t, 2, from.asked.Load())

		for range 50 { // Podlink refuses everything.
			_, ok := tokens.renew(t.Context(), "two")
			require.False(t, ok)
			time.Sleep(10 * time.Millisecond)
		}
		require.EqualValues(t, 3, from.asked.Load())
		time.Sleep(tokenAge)
		from.fails(errors.New("missing"))
		_, ok := tokens.renew(t.Context(), "two")
		require.False(t, ok)
		requireToken(t, "two", tokens)
	})
}

// TestTokenReadBeforeItsRefusal: what is being read when podlink refuses a token may be that token.
func TestTokenReadBeforeItsRefusal(t *testing.T) {
	from := newIssuer(constant("one"))
	withTokens(t, from, func(t *testing.T, tokens *tokens) {
		requireToken(t, "one", tokens)
		time.Sleep(tokenAge)
		slow := func(context.Context) (string, error) {
			time.Sleep(maxTokenWait / 2)
			from.gives("two")
			return "one", nil
		}
		from.give.Store(&slow)
		go requireToken(t, "one", tokens)
		synctest.Wait()
		time.Sleep(time.Millisecond)
		got, ok := tokens.renew(t.Context(), "one")
		require.True(t, ok)
		require.Equal(t, "two", got)
	})
}

// TestTokensThatAreNone are not sent, and not shown.
func TestTokensThatAreNone(t *testing.T) {
	for name, row := range map[string]struct{ content, says string }{
		"nothing":        {"", "empty"},
		"a line's end":   {"\n", "empty"},
		"two words":      {"Bearer " + secret, "not one token"},
		"two lines":      {secret + "\n" + secret, "not one token"},
		"a NUL":          {secret + "\x00", "not one token"},
		"not ASCII":      {secret + "é", "not one token"},
		"too long":       {strings.Repeat(secret, 2000), "longer than 8192 bytes"},
		"one":            {secret, ""},
		"one and a line": {secret + "\r\n", ""},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "token")
			require.NoError(t, os.WriteFile(path, []byte(row.content), 0o600))
			withTokens(t, newIssuer(tokenOf(path)), func(t *testing.T, tokens *tokens) {
				if row.says == "" {
					requireToken(t, secret, tokens)
					return
				}
				_, err := tokens.get(t.Context())
				require.ErrorContains(t, err, row.says)
				require.NotContains(t, err.Error(), secret)
			})
		})
	}
	t.Run("a directory", func(t *testing.T) {
		_, err := tokenOf(t.TempDir())(t.Context())
		require.Error(t, err)
	})
}
