package auth

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/maypok86/otter/v2"
)

// verifiedTokens is how many verified tokens are kept. Only valid ones are, so that strangers can't push them out.
const verifiedTokens = 16_384

// Options configures an Authenticator.
type Options struct {
	TokensFile   string // of static tokens; empty: there are none
	Issuers      []Issuer
	TrustDomain  string // of the SPIFFE ids in certificates; empty: their first DNS name counts
	Certificates bool   // callers may have certificates
	// Reloaded, if not nil, is called when tokens or keys were read again and have changed, or can't be used for another cause than
	// before: then what was loaded before stays in force.
	Reloaded func(key string, err error)
	Now      func() time.Time // nil: time.Now
}

// generation changes after what tokens are checked against has changed.
type generation = atomic.Uint64

// Authenticator checks who calls.
type Authenticator struct {
	now          func() time.Time
	trustDomain  string // as in Options
	certificates bool   // as in Options
	sets         []*KeySet
	issuers      map[string]*KeySet // by the claim iss

	tokensFile       *file // nil: none
	tokens           atomic.Pointer[tokens]
	tokensGeneration generation

	// verified has the tokens that were found valid, by a hash with a secret that never leaves the process: a list of the keys is
	// no list of hashes of tokens.
	verified  *otter.Cache[[sha256.Size]byte, verified]
	secret    [sha256.Size]byte
	strangers strangers
	buffers   sync.Pool
}

// New returns an Authenticator. It reads the files, of which none may be broken at the start; Run fetches keys by URL. Errors begin
// with the path of the setting.
func New(o Options) (*Authenticator, error) {
	if o.Now == nil {
		o.Now = time.Now
	}
	a := &Authenticator{
		now: o.Now, trustDomain: o.TrustDomain, certificates: o.Certificates, issuers: make(map[string]*KeySet),
		verified:  otter.Must(&otter.Options[[sha256.Size]byte, verified]{MaximumSize: verifiedTokens}),
		strangers: newStrangers(o.Now),
		buffers:   sync.Pool{New: func() any { return new([sha256.Size + maxToken]byte) }},
	}
	_, _ = rand.Read(a.secret[:]) // It never fails.
	a.tokens.Store(&tokens{})
	if o.TokensFile != "" {
		a.tokensFile = newFile("auth.tokens_file", o.TokensFile, tokensLimit, o.Reloaded, a.applyTokens)
		if err := a.tokensFile.first(); err != nil {
			return nil, err
		}
	}
	for i, config := range o.Issuers {
		path := fmt.Sprintf("auth.issuers[%d]", i)
		set, err := newKeySet(path, config, o.Reloaded, o.Now)
		if err != nil {
			return nil, err
		}
		if a.issuers[config.Issuer] != nil || config.Issuer == "" {
			return nil, fmt.Errorf("%s.issuer: must be a text of no other issuer", path)
		}
		a.sets, a.issuers[config.Issuer] = append(a.sets, set), set
	}
	if a.tokens.Load().count == 0 && len(a.sets) == 0 && !o.Certificates {
		return nil, fmt.Errorf("auth.tokens_file: %s has no token, and there is no other way to prove who one is", o.TokensFile)
	}
	return a, nil
}

func (a *Authenticator) applyTokens(content []byte) error {
	parsed, err := parseTokens(content)
	if err != nil {
		return err
	}
	a.tokens.Store(parsed)
	a.tokensGeneration.Add(1)
	return nil
}

// Run keeps tokens and keys up to date until the context ends.
func (a *Authenticator) Run(ctx context.Context) error {
	var group sync.WaitGroup
	if a.tokensFile != nil {
		group.Go(func() { a.tokensFile.run(ctx) })
	}
	for _, set := range a.sets {
		group.Go(func() { set.run(ctx) })
	}
	group.Wait()
	return nil
}

// Ready returns an error while the keys of an issuer were never loaded. Keys that are too old to count don't make podlink unready: other
// callers can still be served, and all podlinks would be unready at once.
func (a *Authenticator) Ready() error {
	var missing []string
	for _, set := range a.sets {
		if set.Loaded().IsZero() {
			missing = append(missing, set.Name())
		}
	}
	if missing == nil {
		return nil
	}
	return fmt.Errorf("no keys loaded of the issuers %s", strings.Join(missing, ", "))
}

// Reloads returns the state of everything that is read again.
func (a *Authenticator) Reloads() []*Reload {
	var all []*Reload
	if a.tokensFile != nil {
		all = append(all, a.tokensFile.Reload)
	}
	for _, set := range a.sets {
		all = append(all, set.Reload)
	}
	return all
}

// KeySets returns the issuers.
func (a *Authenticator) KeySets() []*KeySet { return a.sets }

// Proof is what a caller has sent to prove who it is.
type Proof struct {
	Authorization []string              // the values of all such headers
	Chains        [][]*x509.Certificate // which TLS has verified, from the caller's certificate up to a CA; none: no certificate
	Holder        *Holder               // of the connection; nil: what counts in the certificate is read each time
	From          netip.Addr            // for whose refused tokens there is a bound, with those of its host
	At            time.Time             // when the call came; zero: now
}

// Authenticate returns who calls. Whatever is sent must be valid; with both, the bearer names the caller. The error is a *RefusedError.
//
// It waits for a second at most, when a token is signed with a key that its issuer could have published since.
func (a *Authenticator) Authenticate(ctx context.Context, proof Proof) (Identity, error) {
	now := proof.At
	if now.IsZero() {
		now = a.now()
	}
	var holder Identity
	if len(proof.Chains) > 0 {
		if proof.Holder == nil {
			proof.Holder = new(Holder)
		}
		var err error
		if holder, err = a.holder(&proof, now); err != nil {
			return Identity{}, err
		}
	}
	switch {
	case len(proof.Authorization) == 1:
		return a.bearer(ctx, &proof, now)
	case len(proof.Authorization) > 1:
		return Identity{}, refuse(TwoBearers)
	case len(proof.Chains) == 0:
		return Identity{}, refuse(NoCredentials)
	default:
		return holder, nil
	}
}

// bearer returns who sent the only Authorization header.
func (a *Authenticator) bearer(ctx context.Context, proof *Proof, now time.Time) (Identity, error) {
	header := proof.Authorization[0]
	if proof.Holder == nil {
		known, err := a.verifiedBearer(ctx, header, proof.From, now)
		return known.identity, err
	}
	last := proof.Holder.bearer.Load()
	if last != nil && last.header == header && last.counts(now) {
		return last.identity, nil
	}
	known, err := a.verifiedBearer(ctx, header, proof.From, now)
	if err == nil && (last == nil || !last.counts(now) || last.identity == known.identity) { // Else it is a proxy's, with many bearers.
		proof.Holder.bearer.Store(&heldBearer{strings.Clone(header), known})
	}
	return known.identity, err
}

// verifiedBearer returns whose bearer a header is, looking at the header alone.
func (a *Authenticator) verifiedBearer(ctx context.Context, header string, from netip.Addr, now time.Time) (verified, error) {
	scheme, text, _ := strings.Cut(header, " ")
	if !strings.EqualFold(scheme, "Bearer") {
		return verified{}, refuse(OtherScheme)
	}
	text = strings.TrimLeft(text, " ")
	if len(text) > maxToken {
		return verified{}, refuse(TooLong)
	}
	keyed := a.hash(text)
	if known, ok := a.verified.GetIfPresent(keyed); ok {
		if known.counts(now) {
			return known, nil
		}
		a.verified.Invalidate(keyed)
	}
	if !tokenText(text) {
		return verified{}, refuse(Malformed)
	}
	host := Host(from)
	if wait := a.strangers.wait(host); wait > 0 {
		return verified{}, &RefusedError{Cause: TooMany, Wait: wait}
	}
	found, err := a.verify(ctx, text)
	if err != nil {
		a.strangers.refused(host)
		return verified{}, err
	}
	a.verified.Set(keyed, found)
	return found, nil
}

// hash returns the key of a token in the cache.
func (a *Authenticator) hash(text string) [sha256.Size]byte {
	buffer := a.buffers.Get().(*[sha256.Size + maxToken]byte)
	n := copy(buffer[:], a.secret[:])
	n += copy(buffer[n:], text)
	sum := sha256.Sum256(buffer[:n])
	clear(buffer[:n])
	a.buffers.Put(buffer)
	return sum
}

// verify returns whose token that is.
func (a *Authenticator) verify(ctx context.Context, text string) (verified, error) {
	v := verified{source: &a.tokensGeneration, generation: a.tokensGeneration.Load()} // Before the tokens, which change first.
	static, ok := a.tokens.Load().find(sha256.Sum256([]byte(text)))
	switch {
	case !ok && len(a.sets) > 0 && strings.Count(text, ".") == 2:
		return a.jwt(ctx, text)
	case !ok:
		return verified{}, refuse(UnknownToken)
	case len(text) < minToken:
		return verified{}, &RefusedError{Cause: TooShort, Name: static.identity.Name}
	case !a.now().Before(static.notAfter):
		return verified{}, &RefusedError{Cause: Expired, Name: static.identity.Name}
	}
	v.identity, v.until = static.identity, static.notAfter
	return v, nil
}

// tokenText reports whether a text has the form of a bearer token, of RFC 6750: one word that can't end a header, nor hold a second token.
func tokenText(text string) bool {
	text = strings.TrimRight(text, "=")
	for i := range len(text) {
		switch c := text[i]; {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9':
		case c == '-', c == '.', c == '_', c == '~', c == '+', c == '/':
		default:
			return false
		}
	}
	return text != ""
}

// Kind returns how the caller has proven who it is: jwt, token or mtls; none if it has not.
func (i Identity) Kind() string {
	switch kind, _, _ := strings.Cut(i.Name, ":"); kind {
	case "jwt", "token":
		return kind
	case "spiffe", "dns":
		return "mtls"
	default:
		return "none"
	}
}
