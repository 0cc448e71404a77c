package auth

import (
	"compress/gzip"
	"context"
	"crypto/x509"
	"encoding/pem"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// keyServer is an issuer's server. Its answer is a test's to change.
type keyServer struct {
	*httptest.Server

	answer  atomic.Pointer[http.HandlerFunc]
	fetches atomic.Int64
	bearer  atomic.Pointer[string] // of the last fetch
}

func (s *keyServer) does(answer http.HandlerFunc) { s.answer.Store(&answer) }

func (s *keyServer) serves(content string) {
	s.does(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(content)) })
}

// remote is an Authenticator with an issuer whose keys are fetched over TLS.
type remote struct {
	*Authenticator

	clock  fakeClock
	log    reloads
	server *keyServer
	set    *KeySet
	token  string // path of the token file
}

func newRemote(t *testing.T, change ...func(*Issuer)) *remote {
	t.Helper()
	s := new(keyServer)
	s.serves(jwks(ecKey()))
	s.Server = httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.fetches.Add(1)
		bearer := r.Header.Get("Authorization")
		s.bearer.Store(&bearer)
		(*s.answer.Load())(w, r)
	}))
	t.Cleanup(s.Close)
	dir := t.TempDir()
	r := &remote{server: s, token: writeFile(t, filepath.Join(dir, "token"), "podlinks-own-token\n")}
	ca := writeFile(t, filepath.Join(dir, "ca.crt"), certificatePEM(s.Certificate()))
	config := Issuer{
		Name: "main", Issuer: issuerURL, Audiences: []string{"podlink"}, JWKSURL: s.URL + "/keys", CAFile: ca, TokenFile: r.token,
	}
	for _, f := range change {
		f(&config)
	}
	var err error
	r.Authenticator, err = New(Options{Issuers: []Issuer{config}, Reloaded: r.log.add, Now: r.clock.now})
	require.NoError(t, err)
	r.set = r.KeySets()[0]
	return r
}

func certificatePEM(c *x509.Certificate) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw}))
}

func (r *remote) call(t testing.TB, token string) error {
	t.Helper()
	_, err := r.Authenticate(t.Context(), Proof{Authorization: []string{"Bearer " + token}})
	return err
}

// run runs the Authenticator until the test ends.
func (r *remote) run(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	var group sync.WaitGroup
	group.Go(func() { _ = r.Run(ctx) })
	t.Cleanup(func() {
		cancel()
		group.Wait()
	})
	require.Eventually(t, func() bool { return r.Ready() == nil }, 10*time.Second, 5*time.Millisecond)
}

// TestKeysByURL: until the first fetch nothing can be decided; the fetch proves itself with the token of the file, as it is then.
func TestKeysByURL(t *testing.T) {
	t.Parallel()
	r := newRemote(t)
	token := ecKey().token(t, goodClaims())
	require.ErrorContains(t, r.Ready(), "main")
	require.Zero(t, r.set.Loaded())
	requireCause(t, NoKeys, r.call(t, token))
	requireCause(t, UnknownIssuer, r.call(t, ecKey().token(t, goodClaims().with("iss", "https://evil.example"))))
	require.Zero(t, r.server.fetches.Load(), "no call waits for the first keys")

	require.NoError(t, r.set.refresh(t.Context()))
	require.NoError(t, r.Ready())
	require.NoError(t, r.call(t, token))
	require.Equal(t, begin, r.set.Loaded().UTC())
	require.Equal(t, "Bearer podlinks-own-token", *r.server.bearer.Load())
	writeFile(t, r.token, "the-next-token")
	require.NoError(t, r.set.refresh(t.Context()))
	require.Equal(t, "Bearer the-next-token", *r.server.bearer.Load())
	require.Equal(t, "main", r.set.Name())
	require.Equal(t, "auth.issuers[0].jwks_url", r.Reloads()[0].Key())
}

// TestBadFetches: whatever the issuer's server does, a fetch ends soon, takes little memory and changes nothing.
func TestBadFetches(t *testing.T) {
	t.Parallel()
	elsewhere := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write([]byte(jwks(edKey())))
	}))
	t.Cleanup(elsewhere.Close)
	status := func(code int) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(code)
			_, _ = w.Write([]byte(jwks(edKey())))
		}
	}
	content := func(text string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(text)) }
	}
	for name, row := range map[string]struct {
		answer http.HandlerFunc
		change func(t *testing.T, r *remote)
		err    string
	}{
		"redirect": {answer: func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, elsewhere.URL, http.StatusFound)
		}, err: "answers 302"},
		"redirect to itself": {answer: func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, r.URL.String(), http.StatusTemporaryRedirect)
		}, err: "answers 307"},
		"gone":         {answer: status(http.StatusGone), err: "answers 410"},
		"forbidden":    {answer: status(http.StatusForbidden), err: "answers 403"},
		"broken":       {answer: status(http.StatusInternalServerError), err: "answers 500"},
		"no content":   {answer: status(http.StatusNoContent), err: "answers 204"},
		"empty":        {answer: content(""), err: "is no JSON Web Key Set"},
		"a login page": {answer: content("<html>"), err: "is no JSON Web Key Set"},
		"no keys":      {answer: content(`{"keys":[]}`), err: "has no key"},
		"ends early":   {answer: content(jwks(edKey())[:50]), err: "is no JSON Web Key Set"},
		"huge":         {answer: content(jwks(edKey()) + strings.Repeat(" ", jwksLimit)), err: "too large"},
		"without an end": {answer: func(w http.ResponseWriter, r *http.Request) {
			for r.Context().Err() == nil {
				if _, err := w.Write(make([]byte, 64<<10)); err != nil {
					return
				}
			}
		}, err: "too large"},
		"compressed": {answer: func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Encoding", "gzip")
			z := gzip.NewWriter(w)
			_, _ = z.Write([]byte(jwks(edKey())))
			_ = z.Close()
		}, err: "is no JSON Web Key Set"},
		"huge header": {answer: func(w http.ResponseWriter, _ *http.Request) {
			for i := range 64 {
				w.Header().Set("X-"+strings.Repeat("a", i), strings.Repeat("x", 4<<10))
			}
		}, err: "header"},
		"slow": {answer: func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }, err: "deadline"},
		"slow content": {answer: func(w http.ResponseWriter, r *http.Request) {
			for r.Context().Err() == nil {
				_, _ = w.Write([]byte(" "))
				_ = http.NewResponseController(w).Flush()
				time.Sleep(50 * time.Millisecond)
			}
		}, err: "deadline"},
		"hangs up": {answer: func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, err: "EOF"},
		"away":     {change: func(_ *testing.T, r *remote) { r.server.Close() }, err: "refused"},
		"another CA": {change: func(t *testing.T, r *remote) {
			writeFile(t, r.set.config.CAFile, certificatePEM(certificate(t, nil, []string{"127.0.0.1"})))
		}, err: "certificate"},
		"a CA file of something else": {change: func(t *testing.T, r *remote) {
			writeFile(t, r.set.config.CAFile, "secret")
		}, err: "has no certificate"},
		"a token that ends the header": {change: func(t *testing.T, r *remote) {
			writeFile(t, r.token, "secret\r\nX-Evil: 1")
		}, err: "no bearer token"},
		"an empty token": {change: func(t *testing.T, r *remote) { writeFile(t, r.token, "\n") }, err: "no bearer token"},
		"no token":       {change: func(_ *testing.T, r *remote) { r.set.config.TokenFile += ".gone" }, err: "no such file"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRemote(t)
			r.set.askWait = time.Millisecond // Nothing runs that could fetch.
			require.NoError(t, r.set.refresh(t.Context()))
			kept := r.set.generation.Load()
			if row.answer != nil {
				r.server.does(row.answer)
			}
			if row.change != nil {
				row.change(t, r)
			}
			if row.err == "deadline" {
				r.set.fetchTimeout = 200 * time.Millisecond
			}
			err := r.set.refresh(t.Context())
			require.ErrorContains(t, err, row.err)
			require.ErrorContains(t, err, "auth.issuers[0].jwks_url: ")
			require.NotContains(t, err.Error()+r.log.text(), "podlinks-own-token")
			require.NotContains(t, err.Error()+r.log.text(), "secret")
			require.Equal(t, kept, r.set.generation.Load())
			require.True(t, r.set.Failing())
			require.EqualValues(t, 1, r.set.Failures())
			require.NoError(t, r.Ready())
			require.NoError(t, r.call(t, ecKey().token(t, goodClaims())))
			requireCause(t, UnknownKey, r.call(t, edKey().token(t, goodClaims())))
		})
	}
}

// TestOldKeysCountForADay while their issuer is away; then nothing can be decided. What is kept ends with them.
func TestOldKeysCountForADay(t *testing.T) {
	t.Parallel()
	r := newRemote(t)
	require.NoError(t, r.set.refresh(t.Context()))
	token := ecKey().token(t, goodClaims().with("iat", at(time.Hour)).with("exp", at(25*time.Hour)).with("nbf", nil))
	r.server.does(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusBadGateway) })
	r.clock.advance(keysLife)
	require.Error(t, r.set.refresh(t.Context()))
	require.NoError(t, r.call(t, token))
	r.clock.advance(time.Second)
	requireCause(t, NoKeys, r.call(t, token))
	require.NoError(t, r.Ready(), "all podlinks would be unready at once")
	r.server.serves(jwks(ecKey()))
	require.NoError(t, r.set.refresh(t.Context()))
	require.NoError(t, r.call(t, token))
	require.False(t, r.set.Failing())
}

// TestRotationOfKeys: a token of a key that the issuer has published since waits for one fetch, and calls that are in flight meanwhile
// don't fail; a key that the issuer has dropped counts no more, for tokens that are kept too.
func TestRotationOfKeys(t *testing.T) {
	t.Parallel()
	r := newRemote(t)
	r.set.askWait = time.Minute // The machine may be busy.
	r.run(t)
	older, newer := ecKey().token(t, goodClaims()), edKey().token(t, goodClaims())
	require.NoError(t, r.call(t, older))
	before := r.server.fetches.Load()
	r.server.serves(jwks(ecKey(), edKey()))
	var group sync.WaitGroup
	for i := range 50 {
		group.Go(func() {
			token := newer
			if i%2 == 0 {
				token = older
			}
			if err := r.call(t, token); err != nil {
				t.Errorf("a call failed: %v", err)
			}
		})
	}
	group.Wait()
	require.Equal(t, before+1, r.server.fetches.Load())
	r.server.serves(jwks(edKey()))
	require.NoError(t, r.set.refresh(t.Context()))
	require.NoError(t, r.call(t, newer))
	requireCause(t, UnknownKey, r.call(t, older))
}

// TestUnknownKeysCauseFewFetches, however many strangers' tokens name unknown keys.
func TestUnknownKeysCauseFewFetches(t *testing.T) {
	t.Parallel()
	r := newRemote(t)
	r.set.askWait = time.Minute // The machine may be busy.
	r.run(t)
	before := r.server.fetches.Load()
	stranger := newEdKey(t, "stranger")
	header := func(kid string) string { return stranger.header().with("kid", kid).String() }
	for round := range int64(3) {
		for i := range 100 {
			requireCause(t, UnknownKey, r.call(t, stranger.sign(t, header(strings.Repeat("x", i+1)), goodClaims().String())))
		}
		require.Equal(t, before+round+1, r.server.fetches.Load())
		r.clock.advance(askEvery)
	}
	// None of these may cause one, for they would not count whoever signed them.
	r.clock.advance(askEvery)
	for _, token := range []string{
		stranger.token(t, goodClaims().with("aud", "other")),
		stranger.token(t, goodClaims().with("exp", at(-time.Hour)).with("iat", at(-2*time.Hour))),
		stranger.sign(t, stranger.header().with("kid", nil).String(), goodClaims().String()),
		stranger.token(t, goodClaims().with("iss", "https://evil.example")),
	} {
		require.ErrorIs(t, r.call(t, token), ErrUnauthenticated)
	}
	require.Equal(t, before+3, r.server.fetches.Load())
}

// TestUnknownKeyWaitsBriefly: a slow issuer holds a call for a second, a call that ends not at all, and at most some at once.
func TestUnknownKeyWaitsBriefly(t *testing.T) {
	t.Parallel()
	r := newRemote(t)
	r.run(t)
	r.server.does(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	token := newEdKey(t, "next").token(t, goodClaims())
	started := time.Now()
	requireCause(t, UnknownKey, r.call(t, token))
	require.GreaterOrEqual(t, time.Since(started), askWait)
	require.Less(t, time.Since(started), askWait+10*time.Second)

	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := r.Authenticate(ctx, Proof{Authorization: []string{"Bearer " + token}})
	requireCause(t, UnknownKey, err)

	r.set.mu.Lock()
	r.set.waiting = askWaiting
	r.set.mu.Unlock()
	require.False(t, r.set.awaitKeys(t.Context(), nil), "a call that waits for ever would hang here")
	r.set.mu.Lock()
	r.set.waiting = 0
	r.set.mu.Unlock()
	require.NoError(t, r.call(t, ecKey().token(t, goodClaims())), "known keys wait for nothing")
}

// TestKeysByFile: the content counts, not the time of the file; a broken one changes nothing; an unknown key waits for nothing.
func TestKeysByFile(t *testing.T) {
	f := newFixture(t, ecKey())
	set := f.KeySets()[0]
	older, newer := ecKey().token(t, goodClaims()), edKey().token(t, goodClaims())
	check := func(olderCounts, newerCounts, failing bool) {
		t.Helper()
		require.Equal(t, failing, set.file.read() != nil)
		_, err := f.call(t, older)
		require.Equal(t, olderCounts, err == nil)
		_, err = f.call(t, newer)
		require.Equal(t, newerCounts, err == nil)
		require.Equal(t, failing, set.Failing())
	}
	require.NoError(t, f.Ready())
	check(true, false, false)
	writeFile(t, f.jwks, jwks(ecKey(), edKey()))
	check(true, true, false)
	writeFile(t, f.jwks, `{"keys":[]}`)
	check(true, true, true)
	f.clock.advance(0)
	writeFile(t, f.jwks, jwks(edKey()))
	check(false, true, false)
	require.Equal(t, "auth.issuers[0].jwks_file", set.Key())
}

// TestNewNamesTheSetting whose file is broken: the start is refused with it.
func TestNewNamesTheSetting(t *testing.T) {
	dir := t.TempDir()
	bad := writeFile(t, filepath.Join(dir, "bad"), "x")
	keys := writeFile(t, filepath.Join(dir, "keys"), jwks(ecKey()))
	none := writeFile(t, filepath.Join(dir, "none"), "[]")
	good := Issuer{Name: "main", Issuer: issuerURL, Audiences: []string{"podlink"}, JWKSFile: keys}
	second := good
	second.Issuer, second.JWKSFile = "https://second.example", bad
	remote := Issuer{Name: "main", Issuer: issuerURL, Audiences: []string{"podlink"}, JWKSURL: "https://127.0.0.1:1/keys"}
	badCA, badToken := remote, remote
	badCA.CAFile, badToken.TokenFile = bad, dir
	anyAudience := good
	anyAudience.Audiences = nil
	for _, row := range []struct {
		options Options
		want    string
	}{
		{Options{TokensFile: bad}, "auth.tokens_file: "},
		{Options{TokensFile: bad + ".gone"}, "auth.tokens_file: "},
		{Options{TokensFile: none}, "auth.tokens_file: "},
		{Options{TokensFile: none, Issuers: []Issuer{good}}, ""},
		{Options{TokensFile: none, Certificates: true}, ""},
		{Options{Issuers: []Issuer{good, second}}, "auth.issuers[1].jwks_file: "},
		{Options{Issuers: []Issuer{good, good}}, "auth.issuers[1].issuer: "},
		{Options{Issuers: []Issuer{anyAudience}}, "auth.issuers[0].audiences: "},
		{Options{Issuers: []Issuer{remote}}, ""},
		{Options{Issuers: []Issuer{badCA}}, "auth.issuers[0].ca_file: "},
		{Options{Issuers: []Issuer{badToken}}, "auth.issuers[0].token_file: "},
	} {
		a, err := New(row.options)
		if row.want == "" {
			require.NoError(t, err)
			continue
		}
		require.ErrorContains(t, err, row.want)
		require.Nil(t, a)
	}
}
