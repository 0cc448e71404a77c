package auth

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

// Issuer is an issuer of JWTs that podlink trusts.
type Issuer struct {
	Name      string   // in the names of its callers
	Issuer    string   // the claim iss
	Audiences []string // the claim aud has one of them

	JWKSFile  string // its keys as a file, or
	JWKSURL   string // as a URL,
	CAFile    string // whose certificate is signed by one of these CAs; empty: the system's
	TokenFile string // and which asks for this bearer token; empty: none
}

// How keys are fetched.
const (
	refreshEvery = 5 * time.Minute  // +- a fifth
	retryFirst   = time.Second      // after a failure, then twice as long each time,
	retryMax     = 15 * time.Second // up to this
	fetchTimeout = 5 * time.Second  // of one fetch
	keysLife     = 24 * time.Hour   // how long keys count while their issuer is away
	askEvery     = 30 * time.Second // between fetches that tokens with unknown keys cause
	askWait      = time.Second      // how long such a token waits for the fetch
	askWaiting   = 256              // how many wait at once: each holds a call of which it is not known who makes it
	caLimit      = 1 << 20
)

// KeySet is an issuer with its keys. They are read again every few seconds from a file, every few minutes from a URL.
type KeySet struct {
	*Reload

	config     Issuer
	file       *file // nil: by URL
	validator  *jwt.Validator
	keys       atomic.Pointer[keys]
	generation atomic.Uint64     // changes after the keys
	sum        [sha256.Size]byte // of what was fetched last

	fetchTimeout, askWait time.Duration

	ask     chan struct{}
	mu      sync.Mutex
	pending chan struct{} // closed when the fetch that is wanted or in flight has ended; nil: none is
	asked   time.Time     // when a token last caused a fetch
	waiting int
}

// newKeySet returns an issuer. It reads files, but fetches nothing.
func newKeySet(path string, config Issuer, reloaded func(string, error), now func() time.Time) (*KeySet, error) {
	if len(config.Audiences) == 0 {
		return nil, fmt.Errorf("%s.audiences: a token for any other service would do", path)
	}
	s := &KeySet{
		config: config, fetchTimeout: fetchTimeout, askWait: askWait, ask: make(chan struct{}, 1),
		validator: jwt.NewValidator(jwt.WithTimeFunc(now), jwt.WithLeeway(leeway), jwt.WithExpirationRequired(), jwt.WithIssuedAt(),
			jwt.WithIssuer(config.Issuer), jwt.WithAudience(config.Audiences...)),
	}
	if config.JWKSFile != "" {
		s.file = newFile(path+".jwks_file", config.JWKSFile, jwksLimit, reloaded, s.apply)
		s.Reload = s.file.Reload
		s.now = now
		return s, s.file.first()
	}
	s.Reload = &Reload{key: path + ".jwks_url", reloaded: reloaded, now: now}
	if _, err := s.client(); err != nil {
		return nil, fmt.Errorf("%s.ca_file: %w", path, err)
	}
	if _, err := s.bearer(); err != nil {
		return nil, fmt.Errorf("%s.token_file: %w", path, err)
	}
	return s, nil
}

// Name returns the name of the issuer.
func (s *KeySet) Name() string { return s.config.Name }

// current returns the keys that count now and until when, nil if there are none.
func (s *KeySet) current() (keys, time.Time) {
	found, loaded := s.keys.Load(), s.Loaded()
	end := loaded.Add(keysLife)
	switch {
	case found == nil:
		return nil, time.Time{}
	case s.file != nil: // An operator's file counts until it is replaced, as the tokens do.
		return *found, s.now().Add(keysLife)
	case s.now().After(end):
		return nil, time.Time{}
	}
	return *found, end
}

// apply takes the content of a key set.
func (s *KeySet) apply(content []byte) error {
	found, err := parseKeys(content)
	if err != nil {
		return err
	}
	s.keys.Store(&found)
	s.generation.Add(1)
	return nil
}

// run keeps the keys up to date until the context ends.
func (s *KeySet) run(ctx context.Context) {
	if s.file != nil {
		s.file.run(ctx)
		return
	}
	timer := time.NewTimer(0)
	defer timer.Stop()
	retry := retryFirst
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		case <-s.ask:
		}
		pause := refreshEvery
		if err := s.refresh(ctx); err != nil {
			pause, retry = retry, min(2*retry, retryMax)
		} else {
			retry = retryFirst
		}
		timer.Reset(pause*4/5 + rand.N(pause*2/5)) //nolint:gosec // Jitter.
	}
}

// refresh fetches the keys, once for all who wait.
func (s *KeySet) refresh(ctx context.Context) error {
	s.mu.Lock()
	if s.pending == nil {
		s.pending = make(chan struct{})
	}
	s.mu.Unlock()
	changed, err := s.fetch(ctx)
	if ctx.Err() == nil {
		err = s.note(err, changed)
	}
	s.mu.Lock()
	close(s.pending)
	s.pending = nil
	s.mu.Unlock()
	return err
}

// fetch returns whether the key set has changed.
func (s *KeySet) fetch(ctx context.Context) (changed bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, s.fetchTimeout)
	defer cancel()
	client, err := s.client()
	if err != nil {
		return false, err
	}
	defer client.CloseIdleConnections()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, s.config.JWKSURL, http.NoBody)
	if err != nil {
		return false, err
	}
	bearer, err := s.bearer()
	if err != nil {
		return false, err
	}
	if bearer != "" {
		request.Header.Set("Authorization", "Bearer "+bearer)
	}
	request.Header.Set("Accept", "application/jwk-set+json, application/json")
	reply, err := client.Do(request)
	if err != nil {
		return false, err
	}
	defer reply.Body.Close()
	if reply.StatusCode != http.StatusOK {
		return false, fmt.Errorf("%s answers %d", s.config.JWKSURL, reply.StatusCode)
	}
	content, err := readAll(reply.Body, jwksLimit)
	if err != nil {
		return false, err
	}
	sum := sha256.Sum256(content)
	if sum == s.sum {
		return false, nil
	}
	if err := s.apply(content); err != nil {
		return false, fmt.Errorf("%s %w", s.config.JWKSURL, err)
	}
	s.sum = sum
	return true, nil
}

// client returns a client for one fetch: the CAs and the connection are not older than it.
func (s *KeySet) client() (*http.Client, error) {
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	if s.config.CAFile != "" {
		content, err := readBounded(s.config.CAFile, caLimit)
		if err != nil {
			return nil, err
		}
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(content) {
			return nil, fmt.Errorf("%s has no certificate", s.config.CAFile)
		}
	}
	return &http.Client{
		Transport: &http.Transport{
			Proxy: http.ProxyFromEnvironment, TLSClientConfig: config, DisableKeepAlives: true, DisableCompression: true,
			MaxResponseHeaderBytes: 64 << 10, ForceAttemptHTTP2: true,
		},
		// The answer of a place that the configuration does not name is worth nothing, and the bearer is not for it.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}, nil
}

// bearer returns the token of the token file, empty if there is none.
func (s *KeySet) bearer() (string, error) {
	if s.config.TokenFile == "" {
		return "", nil
	}
	content, err := readBounded(s.config.TokenFile, maxToken)
	if err != nil {
		return "", err
	}
	text := strings.TrimSpace(string(content))
	if !tokenText(text) {
		return "", errors.New("has no bearer token")
	}
	return text, nil
}

// awaitKeys waits for the fetch in flight, or causes one, and reports whether it has ended since. A token with an unknown key causes at
// most one fetch in askEvery; while none is allowed, it does not wait.
func (s *KeySet) awaitKeys(ctx context.Context, deadline <-chan time.Time) bool {
	if s.file != nil {
		return false
	}
	s.mu.Lock()
	if s.waiting >= askWaiting {
		s.mu.Unlock()
		return false
	}
	if s.pending == nil {
		now := s.now()
		if !s.asked.IsZero() && now.Sub(s.asked) < askEvery {
			s.mu.Unlock()
			return false
		}
		s.asked = now
		s.pending = make(chan struct{})
		select {
		case s.ask <- struct{}{}:
		default:
		}
	}
	pending := s.pending
	s.waiting++
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		s.waiting--
		s.mu.Unlock()
	}()
	select {
	case <-pending:
		return true
	case <-deadline:
	case <-ctx.Done():
	}
	return false
}
