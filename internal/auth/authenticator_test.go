package auth

import (
	"context"
	"crypto/elliptic"
	"encoding/base64"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// TestAuthorizationHeaders: the forms of the header.
func TestAuthorizationHeaders(t *testing.T) {
	f := newFixture(t)
	bob := staticToken("bob")
	for name, row := range map[string]struct {
		headers []string
		cause   Cause // empty: let in
	}{
		"Bearer":                   {headers: []string{"Bearer " + bob}},
		"bearer":                   {headers: []string{"bearer " + bob}},
		"BEARER":                   {headers: []string{"BEARER " + bob}},
		"more spaces":              {headers: []string{"Bearer   " + bob}},
		"none":                     {cause: NoCredentials},
		"no value":                 {headers: []string{}, cause: NoCredentials},
		"empty":                    {headers: []string{""}, cause: OtherScheme},
		"a space":                  {headers: []string{" "}, cause: OtherScheme},
		"a space first":            {headers: []string{" Bearer " + bob}, cause: OtherScheme},
		"two":                      {headers: []string{"Bearer " + bob, "Bearer " + bob}, cause: TwoBearers},
		"two, one empty":           {headers: []string{"Bearer " + bob, ""}, cause: TwoBearers},
		"two schemes":              {headers: []string{"Bearer " + bob, "Basic Ym9iOmJvYg=="}, cause: TwoBearers},
		"two in one":               {headers: []string{"Bearer " + bob + ", Bearer " + bob}, cause: Malformed},
		"two words":                {headers: []string{"Bearer " + bob + " " + bob}, cause: Malformed},
		"a space behind":           {headers: []string{"Bearer " + bob + " "}, cause: Malformed},
		"a tab":                    {headers: []string{"Bearer\t" + bob}, cause: OtherScheme},
		"a tab first":              {headers: []string{"Bearer \t" + bob}, cause: Malformed},
		"a line":                   {headers: []string{"Bearer " + bob + "\n"}, cause: Malformed},
		"a zero":                   {headers: []string{"Bearer " + bob + "\x00"}, cause: Malformed},
		"quotes":                   {headers: []string{`Bearer "` + bob + `"`}, cause: Malformed},
		"padding alone":            {headers: []string{"Bearer =="}, cause: Malformed},
		"padding within":           {headers: []string{"Bearer " + bob[:32] + "=" + bob[32:]}, cause: Malformed},
		"the scheme alone":         {headers: []string{"Bearer"}, cause: Malformed},
		"the scheme and a space":   {headers: []string{"Bearer "}, cause: Malformed},
		"no scheme":                {headers: []string{bob}, cause: OtherScheme},
		"Basic":                    {headers: []string{"Basic " + base64.StdEncoding.EncodeToString([]byte("bob:"+bob))}, cause: OtherScheme},
		"DPoP":                     {headers: []string{"DPoP " + bob}, cause: OtherScheme},
		"Token":                    {headers: []string{"Token " + bob}, cause: OtherScheme},
		"a scheme that begins so":  {headers: []string{"Bearers " + bob}, cause: OtherScheme},
		"a colon":                  {headers: []string{"Bearer: " + bob}, cause: OtherScheme},
		"too long":                 {headers: []string{"Bearer " + strings.Repeat("a", maxToken+1)}, cause: TooLong},
		"the longest":              {headers: []string{"Bearer " + strings.Repeat("a", maxToken)}, cause: UnknownToken},
		"too long, another scheme": {headers: []string{strings.Repeat("a", 1<<20)}, cause: OtherScheme},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := f.Authenticate(t.Context(), Proof{Authorization: row.headers})
			if row.cause != "" {
				requireCause(t, row.cause, err)
				require.Zero(t, got)
				return
			}
			require.NoError(t, err)
			require.Equal(t, Identity{Name: "token:bob"}, got)
		})
	}
}

// TestKind: how a caller has proven who it is.
func TestKind(t *testing.T) {
	for name, want := range map[string]string{
		"": "none", "jwt:main:spiffe://x": "jwt", "token:dns": "token", "spiffe://example.org/a": "mtls", "dns:a": "mtls",
	} {
		require.Equal(t, want, Identity{Name: name}.Kind(), name)
	}
}

// TestNoSecretInErrors: neither errors nor the log have any part of what callers send or files contain.
func TestNoSecretInErrors(t *testing.T) {
	f := newFixture(t)
	key := ecKey()
	// Each value is a mark that is looked for afterwards.
	const mark = "s3cr3tmark"
	header := func(name string, value any) string {
		return key.sign(t, key.header().with(name, value).String(), goodClaims().String())
	}
	bearers := []string{
		staticToken("bob") + mark, mark, strings.Repeat(mark, 1000), "a." + mark + ".c", mark + "." + mark + "." + mark,
		header("alg", mark), header("kid", mark), header("typ", mark), header("crit", []string{mark}),
		header("alg", mark)[:40], "{" + mark,
		key.sign(t, `{"alg":"`+mark+`}`, mark), key.sign(t, key.header().String(), `{"`+mark+`":1,"`+mark+`":2}`),
		key.sign(t, key.header().String(), mark),
	}
	for _, name := range []string{"iss", "sub", "aud", "exp", "nbf", "iat"} {
		bearers = append(bearers,
			key.token(t, goodClaims().with(name, mark+" ")), key.token(t, goodClaims().with(name, map[string]any{mark: mark})),
			newECKey(t, "ec", elliptic.P256()).token(t, goodClaims().with(name, mark)))
	}
	for _, bearer := range bearers {
		for _, form := range []string{"Bearer %s", "%s", "Basic %s", "Bearer %s %[1]s", " %s"} {
			_, err := f.Authenticate(t.Context(), Proof{Authorization: []string{fmt.Sprintf(form, bearer)}})
			requireNoPart(t, err, bearer, mark)
			_, err = f.Authenticate(t.Context(), Proof{
				Authorization: []string{fmt.Sprintf(form, bearer), mark}, Chains: alone(certificate(t, nil, []string{mark + ".org"})),
			})
			requireNoPart(t, err, bearer, mark)
		}
	}
	for _, content := range []string{mark, "- {name: " + mark, "- {" + mark + ": 1}", "- {name: '" + mark + "!', sha256: " + mark + "}"} {
		writeFile(t, f.tokens, content)
		requireNoPart(t, f.tokensFile.read(), mark)
		writeFile(t, f.jwks, content)
		requireNoPart(t, f.KeySets()[0].file.read(), mark)
	}
	require.NotContains(t, f.log.text(), mark)
}

// requireNoPart checks that an error has no part of some secrets, of eight characters or more.
func requireNoPart(t testing.TB, err error, secrets ...string) {
	t.Helper()
	require.Error(t, err)
	for _, secret := range secrets {
		for i := 0; i+8 <= len(secret); i += 4 {
			require.NotContains(t, err.Error(), secret[i:i+8])
		}
	}
}

// TestKeptTokensAreBounded, and those of strangers are not kept.
func TestKeptTokensAreBounded(t *testing.T) {
	f := newFixture(t, edKey())
	stranger := newEdKey(t, "ed")
	for range 100 {
		_, err := f.call(t, stranger.token(t, goodClaims()))
		require.Error(t, err)
	}
	f.verified.CleanUp()
	require.Zero(t, f.verified.EstimatedSize())
	f.verified.SetMaximum(10)
	for i := range 100 {
		_, err := f.call(t, edKey().token(t, goodClaims().with("jti", i)))
		require.NoError(t, err)
	}
	f.verified.CleanUp()
	require.LessOrEqual(t, f.verified.EstimatedSize(), 10)
	bob := digest(staticToken("bob"))
	_, err := f.call(t, staticToken("bob"))
	require.NoError(t, err)
	for key := range f.verified.Keys() {
		require.NotEqual(t, bob, fmt.Sprintf("%x", key), "a key of the cache is the hash that the tokens file has")
	}
}

// TestAllocations: a call with a known token or certificate allocates nothing.
func TestAllocations(t *testing.T) {
	f := newFixture(t)
	jwt := []string{"Bearer " + ecKey().token(t, kubernetesClaims("shop", "chat", "chat-2"))}
	static := []string{"Bearer " + staticToken("bob")}
	chains := alone(certificate(t, nil, []string{"a.example.org"}))
	var holder Holder
	ctx := t.Context()
	for name, call := range map[string]func() error{
		"JWT":         func() error { _, err := f.Authenticate(ctx, Proof{Authorization: jwt}); return err },
		"its JWT":     func() error { _, err := f.Authenticate(ctx, Proof{Authorization: jwt, Holder: &holder}); return err },
		"token":       func() error { _, err := f.Authenticate(ctx, Proof{Authorization: static}); return err },
		"certificate": func() error { _, err := f.Authenticate(ctx, Proof{Chains: chains, Holder: &holder}); return err },
	} {
		require.NoError(t, call())
		got := testing.AllocsPerRun(1000, func() {
			if err := call(); err != nil {
				t.Error(err)
			}
		})
		require.LessOrEqual(t, got, 1.0, name) // A pool may be emptied meanwhile.
	}
}

// TestBearersOfAConnection: what a connection has proven counts no longer than it would on a new one, and for that bearer alone.
func TestBearersOfAConnection(t *testing.T) {
	f := newFixture(t)
	var holder Holder
	call := func(token string) (string, error) {
		who, err := f.Authenticate(t.Context(), Proof{Authorization: []string{"Bearer " + token}, Holder: &holder})
		return who.Name, err
	}
	requireName := func(want, token string) {
		t.Helper()
		got, err := call(token)
		require.NoError(t, err)
		require.Equal(t, want, got)
	}
	bob, jwt := staticToken("bob"), ecKey().token(t, goodClaims())
	chat := "jwt:main:" + goodClaims()["sub"].(string)
	for range 2 {
		requireName("token:bob", bob)
		requireName(chat, jwt)
	}
	for _, token := range []string{bob + "x", bob[:len(bob)-1], strings.ToUpper(bob), ""} {
		_, err := call(token)
		require.ErrorIs(t, err, ErrUnauthenticated)
	}
	writeFile(t, f.tokens, entry("eve", staticToken("eve"), begin.Add(time.Hour)))
	require.NoError(t, f.tokensFile.read())
	_, err := call(bob)
	requireCause(t, UnknownToken, err)
	for range 2 {
		requireName(chat, jwt)
		requireName("token:eve", staticToken("eve"))
	}
	writeFile(t, f.jwks, jwks(edKey()))
	require.NoError(t, f.KeySets()[0].file.read())
	_, err = call(jwt)
	require.ErrorIs(t, err, ErrUnauthenticated)
	requireName("token:eve", staticToken("eve"))
	f.clock.advance(time.Hour)
	_, err = call(staticToken("eve"))
	requireCause(t, Expired, err)
}

// TestAtOnce: calls go on while everything is read again.
func TestAtOnce(t *testing.T) {
	f := newFixture(t)
	tokens := []string{ecKey().token(t, goodClaims()), edKey().token(t, goodClaims()), staticToken("bob")}
	leaf := certificate(t, nil, []string{"a.example.org"})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var group sync.WaitGroup
	for _, token := range tokens {
		group.Go(func() {
			for ctx.Err() == nil {
				if _, err := f.Authenticate(ctx, Proof{Authorization: []string{"Bearer " + token}, Chains: alone(leaf)}); err != nil {
					t.Errorf("a call failed: %v", err)
					return
				}
			}
		})
	}
	for i := range 100 {
		content := entry("bob", staticToken("bob"), begin.Add(time.Duration(i+1)*time.Hour))
		writeFile(t, f.tokens, content)
		require.NoError(t, f.tokensFile.read())
		writeFile(t, f.jwks, jwks(ecKey(), edKey().with("n", fmt.Sprint(i))))
		require.NoError(t, f.KeySets()[0].file.read())
		f.Reloads()[0].Failing()
	}
	cancel()
	group.Wait()
}

// TestRunReads the files again, and ends with its context.
func TestRunReads(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.tokensFile.every = 10 * time.Millisecond
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- f.Run(ctx) }()
	eve := staticToken("eve")
	writeFile(t, f.tokens, entry("eve", eve, begin.Add(time.Hour)))
	require.Eventually(t, func() bool {
		_, err := f.call(t, eve)
		return err == nil
	}, 30*time.Second, 50*time.Millisecond)
	cancel()
	require.NoError(t, <-done)
	require.Equal(t, "auth.tokens_file <nil>", f.log.text())
}

// TestLinkedFile: Kubernetes replaces a mounted file by moving a link to a folder.
func TestLinkedFile(t *testing.T) {
	dir := t.TempDir()
	for i, name := range []string{"bob", "eve"} {
		folder := filepath.Join(dir, fmt.Sprint(i))
		require.NoError(t, os.Mkdir(folder, 0o700))
		writeFile(t, filepath.Join(folder, "tokens.yaml"), entry(name, staticToken(name), begin.Add(time.Hour)))
	}
	link := func(folder string) {
		require.NoError(t, os.Symlink(folder, filepath.Join(dir, "next")))
		require.NoError(t, os.Rename(filepath.Join(dir, "next"), filepath.Join(dir, "data")))
	}
	link("0")
	a, err := New(Options{TokensFile: filepath.Join(dir, "data", "tokens.yaml"), Now: new(fakeClock).now})
	require.NoError(t, err)
	link("1")
	require.NoError(t, a.tokensFile.read())
	_, err = a.Authenticate(t.Context(), Proof{Authorization: []string{"Bearer " + staticToken("eve")}})
	require.NoError(t, err)
	_, err = a.Authenticate(t.Context(), Proof{Authorization: []string{"Bearer " + staticToken("bob")}})
	requireCause(t, UnknownToken, err)
}
