package auth

import (
	"errors"
	"time"
)

var (
	// ErrUnauthenticated is that the caller has not proven who it is.
	ErrUnauthenticated = errors.New("unauthenticated")
	// ErrUndecided is that the proof can't be checked, because the keys of its issuer are not known.
	ErrUndecided = errors.New("undecided")
	// ErrTooMany is that the proof was not checked, because too many from that address were refused.
	ErrTooMany = errors.New("not checked")
)

// Cause is why a caller was refused, for podlink's log alone: a caller that learned it could guess better.
type Cause string

// The causes. They are fixed texts, so that no part of a token ends up in a log.
const (
	NoCredentials  Cause = "no credentials"
	TwoBearers     Cause = "more than one Authorization header" //nolint:gosec // It says so, and is none.
	OtherScheme    Cause = "an Authorization header other than Bearer"
	Malformed      Cause = "malformed token"
	TooLong        Cause = "token too long"
	TooShort       Cause = "token shorter than 32 characters"
	UnknownToken   Cause = "unknown token"
	UnknownIssuer  Cause = "token of an unknown issuer"
	WrongAlgorithm Cause = "algorithm other than RS256, ES256 and EdDSA"
	WrongType      Cause = "token of another type, or with a critical header"
	UnknownKey     Cause = "signed with an unknown key"
	BadSignature   Cause = "bad signature"
	Expired        Cause = "expired"
	NotYetValid    Cause = "not valid yet"
	WrongAudience  Cause = "for another audience"
	WrongLifetime  Cause = "lifetime unknown or longer than a day"
	BadClaims      Cause = "claims missing or of the wrong type"
	BadCertificate Cause = "certificate without a name that counts"
	NoKeys         Cause = "no keys of the issuer loaded"
	TooMany        Cause = "too many tokens from this address were refused"
)

// RefusedError is the error of a caller that is not let in. It is ErrUnauthenticated, or ErrUndecided if the cause is NoKeys,
// or ErrTooMany.
type RefusedError struct {
	Cause Cause
	// Name is who the caller is, when the proof was genuine but does not count, as it has expired. Else empty.
	Name string
	Wait time.Duration // after which to try again; TooMany only
}

// Error implements error.
func (r *RefusedError) Error() string {
	text := r.Unwrap().Error() + ": " + string(r.Cause)
	if r.Name != "" {
		text += ": " + r.Name
	}
	return text
}

// Unwrap returns the kind of the refusal.
func (r *RefusedError) Unwrap() error {
	switch r.Cause {
	case NoKeys:
		return ErrUndecided
	case TooMany:
		return ErrTooMany
	default:
		return ErrUnauthenticated
	}
}

func refuse(cause Cause) error { return &RefusedError{Cause: cause} }
