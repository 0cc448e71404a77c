package auth

import (
	"errors"
	"strings"
)

// ErrUndecided is a stand-in until the authenticator lands.
var ErrUndecided = errors.New("undecided")

// Kind is a stand-in until the authenticator lands.
func (i Identity) Kind() string { kind, _, _ := strings.Cut(i.Name, ":"); return kind }
