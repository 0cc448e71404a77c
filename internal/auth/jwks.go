package auth

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/MicahParks/jwkset"
)

// The algorithms of signatures. HMAC is not among them: whoever could check a token could make one.
const (
	rs256 = "RS256"
	es256 = "ES256"
	eddsa = "EdDSA"
)

// Bounds of a key set.
const (
	jwksLimit  = 256 << 10
	maxKeys    = 64
	minRSABits = 2048
	maxRSABits = 8192 // checking a signature of a longer key takes milliseconds
	// maxCandidates is with how many keys a signature is checked at most, when several have its kid or it has none.
	maxCandidates = 4
)

// key is a public key of an issuer. It has exactly one algorithm, so that a token can't choose how its key is used.
type key struct {
	kid, algorithm string
	public         any // *rsa.PublicKey, *ecdsa.PublicKey or ed25519.PublicKey
}

// keys are those of an issuer.
type keys []key

// candidates returns the keys with which a token of that header may be signed.
func (k keys) candidates(algorithm, kid string) keys {
	var found keys
	for _, key := range k {
		if key.algorithm == algorithm && (kid == "" || key.kid == kid) {
			found = append(found, key)
		}
	}
	if len(found) > maxCandidates {
		return nil
	}
	return found
}

var errKeys = errors.New("has no key for RS256 (of 2048 to 8192 bits), ES256 or EdDSA")

// parseKeys reads a JSON Web Key Set. Keys that podlink has no use for are left out: issuers publish those for encryption, too. A set
// without any key that is left is an error, for it is more likely that of something else than of an issuer that trusts no key.
func parseKeys(content []byte) (keys, error) {
	var set struct {
		Keys []json.RawMessage `json:"keys"`
	}
	if err := json.Unmarshal(content, &set); err != nil {
		return nil, errors.New("is no JSON Web Key Set")
	}
	if len(set.Keys) > maxKeys {
		return nil, fmt.Errorf("has more than %d keys", maxKeys)
	}
	var usable keys
	for _, text := range set.Keys {
		if key, ok := parseKey(text); ok {
			usable = append(usable, key)
		}
	}
	if len(usable) == 0 {
		return nil, errKeys
	}
	return usable, nil
}

// parseKey reads a key of a set. Certificates in it are ignored, and nothing that it points at is fetched.
func parseKey(text json.RawMessage) (key, bool) {
	var m jwkset.JWKMarshal
	if json.Unmarshal(text, &m) != nil || m.USE != "" && m.USE != jwkset.UseSig ||
		len(m.KEYOPS) > 0 && !slices.Contains(m.KEYOPS, jwkset.KeyOpsVerify) {
		return key{}, false
	}
	public := jwkset.JWKMarshal{KTY: m.KTY, CRV: m.CRV, X: m.X, Y: m.Y, N: m.N, E: m.E}
	parsed, err := jwkset.NewJWKFromMarshal(public, jwkset.JWKMarshalOptions{}, jwkset.JWKValidateOptions{})
	if err != nil {
		return key{}, false
	}
	k := key{kid: m.KID, public: parsed.Key()}
	switch public := k.public.(type) {
	case *rsa.PublicKey:
		if bits := public.N.BitLen(); bits < minRSABits || bits > maxRSABits || public.N.Bit(0) == 0 || public.E < 3 || public.E%2 == 0 {
			return key{}, false
		}
		k.algorithm = rs256
	case *ecdsa.PublicKey:
		if public.Curve != elliptic.P256() {
			return key{}, false
		}
		k.algorithm = es256
	case ed25519.PublicKey:
		k.algorithm = eddsa
		if m.ALG == "Ed25519" { // The newer name of the same.
			m.ALG = eddsa
		}
	default:
		return key{}, false
	}
	return k, m.ALG == "" || m.ALG.String() == k.algorithm
}
