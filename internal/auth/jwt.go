package auth

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"regexp"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/golang-jwt/jwt/v5"
)

// Bounds of JWTs.
const (
	maxToken    = 8192 // characters of a bearer token of any kind
	leeway      = 30 * time.Second
	maxLifetime = 24 * time.Hour
	maxDepth    = 16      // of the JSON in a token
	maxDate     = 1 << 40 // seconds: what is greater is no date, and floats of its size differ between machines
)

// unverified reads the parts of a JWT. It checks nothing but their form.
var unverified = jwt.NewParser(jwt.WithStrictDecoding())

// typePattern matches the types of JWTs that are for calling a service. Logout and event tokens of the same issuer are not.
var typePattern = regexp.MustCompile(`(?i)^(application/)?(at\+)?jwt$`)

// subjectPattern matches the subjects that can be part of a name: what is shown in a log or typed in a policy looks like what it is.
var subjectPattern = regexp.MustCompile(`^[!-~]{1,255}$`)

// claims are those of a JWT, of which each key occurs once.
type claims struct{ jwt.MapClaims }

// UnmarshalJSON implements json.Unmarshaler.
func (c *claims) UnmarshalJSON(text []byte) error {
	if !plainObject(text) {
		return errNotPlain
	}
	return json.Unmarshal(text, &c.MapClaims)
}

var errNotPlain = errors.New("not a plain JSON object")

// plainObject reports whether a text is one JSON object, in UTF-8, with no key twice in one object: readers differ in what they
// take of two.
func plainObject(text []byte) bool {
	type scope struct {
		keys    map[string]bool // nil: an array
		wantKey bool
	}
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.UseNumber()
	var scopes []scope
	for first := true; utf8.Valid(text); first = false {
		next, err := decoder.Token()
		if err != nil {
			return errors.Is(err, io.EOF) && !first && len(scopes) == 0
		}
		switch top := len(scopes) - 1; {
		case next == json.Delim('{') && len(scopes) < maxDepth && (first || top >= 0):
			scopes = append(scopes, scope{make(map[string]bool), true})
			continue
		case top < 0:
			return false
		case next == json.Delim('[') && len(scopes) < maxDepth:
			scopes = append(scopes, scope{})
			continue
		case next == json.Delim('{') || next == json.Delim('['):
			return false
		case next == json.Delim('}') || next == json.Delim(']'):
			scopes = scopes[:top]
		case scopes[top].wantKey:
			name, _ := next.(string)
			if scopes[top].keys[name] {
				return false
			}
			scopes[top].keys[name], scopes[top].wantKey = true, false
			continue
		}
		if top := len(scopes) - 1; top >= 0 {
			scopes[top].wantKey = scopes[top].keys != nil // A value has ended.
		}
	}
	return false
}

// verified is a token that was found valid: for whom, and how long that may be kept.
type verified struct {
	identity   Identity
	until      time.Time
	source     *generation
	generation uint64
}

// counts reports whether the token need not be verified again.
func (v *verified) counts(now time.Time) bool {
	return v.generation == v.source.Load() && now.Before(v.until)
}

// jwt returns who sent a JWT.
func (a *Authenticator) jwt(ctx context.Context, text string) (verified, error) {
	header, _, _ := strings.Cut(text, ".")
	if plain, err := base64.RawURLEncoding.Strict().DecodeString(header); err != nil || !plainObject(plain) {
		return verified{}, refuse(Malformed)
	}
	var c claims
	token, parts, err := unverified.ParseUnverified(text, &c)
	switch {
	case errors.Is(err, jwt.ErrTokenUnverifiable):
		return verified{}, refuse(WrongAlgorithm)
	case err != nil:
		return verified{}, refuse(Malformed)
	}
	if cause := headerCause(token); cause != "" {
		return verified{}, refuse(cause)
	}
	iss, _ := c.GetIssuer()
	issuer := a.issuers[iss]
	if issuer == nil {
		return verified{}, refuse(UnknownIssuer)
	}
	cause := issuer.claimsCause(c)
	v := verified{source: &issuer.generation, generation: issuer.generation.Load()}
	kid, _ := token.Header["kid"].(string)
	found, until, err := issuer.find(ctx, token.Method.Alg(), kid, cause == "")
	if err != nil {
		return verified{}, err
	}
	if !signed(token, parts[0]+"."+parts[1], found) {
		return verified{}, refuse(BadSignature)
	}
	sub, _ := c.GetSubject()
	v.identity = Identity{Name: "jwt:" + issuer.config.Name + ":" + sub, Pod: provenPod(c, sub)}
	switch cause {
	case "":
	case BadClaims:
		return verified{}, refuse(cause)
	default:
		return verified{}, &RefusedError{Cause: cause, Name: v.identity.Name}
	}
	expires, _ := c.GetExpirationTime()
	v.until = expires.Add(leeway)
	if until.Before(v.until) {
		v.until = until
	}
	return v, nil
}

// headerCause returns why a token with that header does not count, empty if it may.
func headerCause(token *jwt.Token) Cause {
	switch token.Method.Alg() {
	case rs256, es256, eddsa:
	default:
		return WrongAlgorithm
	}
	if _, critical := token.Header["crit"]; critical {
		return WrongType
	}
	if typ, ok := token.Header["typ"]; ok {
		if text, ok := typ.(string); !ok || !typePattern.MatchString(text) {
			return WrongType
		}
	}
	if kid, ok := token.Header["kid"]; ok {
		if text, ok := kid.(string); !ok || text == "" {
			return Malformed
		}
	}
	return ""
}

// claimsCause returns why a token with those claims does not count, empty if it does.
func (s *KeySet) claimsCause(c claims) Cause {
	for _, name := range []string{"exp", "nbf", "iat"} {
		if value, ok := c.MapClaims[name]; ok {
			if date, ok := value.(float64); !ok || date < 0 || date > maxDate {
				return BadClaims
			}
		}
	}
	if sub, err := c.GetSubject(); err != nil || !subjectPattern.MatchString(sub) {
		return BadClaims
	}
	err := s.validator.Validate(c)
	switch {
	case err == nil:
	case errors.Is(err, jwt.ErrTokenRequiredClaimMissing), errors.Is(err, jwt.ErrInvalidType):
		return BadClaims
	case errors.Is(err, jwt.ErrTokenInvalidAudience):
		return WrongAudience
	case errors.Is(err, jwt.ErrTokenExpired):
		return Expired
	case errors.Is(err, jwt.ErrTokenNotValidYet), errors.Is(err, jwt.ErrTokenUsedBeforeIssued):
		return NotYetValid
	default:
		return BadClaims
	}
	expires, _ := c.GetExpirationTime()
	from, _ := c.GetIssuedAt()
	if from == nil {
		from, _ = c.GetNotBefore()
	}
	if from == nil || expires.Sub(from.Time) > maxLifetime {
		return WrongLifetime
	}
	return ""
}

// find returns the keys of a token, and until when they count.
func (s *KeySet) find(ctx context.Context, algorithm, kid string, mayAsk bool) (keys, time.Time, error) {
	deadline := time.NewTimer(s.askWait)
	defer deadline.Stop()
	for {
		all, until := s.current()
		if all == nil {
			return nil, time.Time{}, refuse(NoKeys)
		}
		if found := all.candidates(algorithm, kid); found != nil {
			return found, until, nil
		}
		if !mayAsk || kid == "" || !s.awaitKeys(ctx, deadline.C) {
			return nil, time.Time{}, refuse(UnknownKey)
		}
	}
}

// signed reports whether one of the keys has signed a token.
func signed(token *jwt.Token, text string, candidates keys) bool {
	for _, key := range candidates {
		if token.Method.Verify(text, token.Signature, key.public) == nil {
			return true
		}
	}
	return false
}

// provenPod returns the pod to which Kubernetes has bound a service account's token, empty if none. The claim of another issuer that
// lets its users choose claims proves nothing: subject and claim must name the same service account.
func provenPod(c claims, sub string) string {
	bound, _ := c.MapClaims["kubernetes.io"].(map[string]any)
	account, _ := bound["serviceaccount"].(map[string]any)
	pod, _ := bound["pod"].(map[string]any)
	namespace, _ := bound["namespace"].(string)
	name, _ := account["name"].(string)
	podName, _ := pod["name"].(string)
	if namespace == "" || name == "" || sub != "system:serviceaccount:"+namespace+":"+name || !podPattern.MatchString(podName) {
		return ""
	}
	return podName
}
