package auth

import (
	"fmt"
	"strings"
)

// whoText is a name or a pattern in the file, with its place.
type whoText struct{ place, text string }

// Unknown returns what the policy's rules name that no caller can be, each with why: a rule for it never matches. Only a look at both sides
// shows it: the policy has no mistake, and callers are refused.
func (p *Policy) Unknown(callers *Authenticator) []string {
	var found []string
	for _, who := range p.rules.Load().who {
		if why := callers.never(who.text); why != "" {
			found = append(found, fmt.Sprintf("%s: %s: no caller can be %q: %s", p.Key(), who.place, who.text, why))
		}
	}
	return found
}

// never returns why no caller can have a name, or one that the pattern matches; empty if one can.
func (a *Authenticator) never(who string) string {
	kind, rest, _ := strings.Cut(who, ":")
	switch kind {
	case "token":
		return a.neverToken(rest)
	case "jwt":
		return a.neverJWT(rest)
	default:
		return a.neverCertificate(kind, rest)
	}
}

func (a *Authenticator) neverToken(name string) string {
	all := a.tokens.Load()
	switch {
	case all.count == 0:
		return "auth.tokens_file has no token"
	case name != "*" && !all.has("token:"+name):
		return "auth.tokens_file has no token of that name"
	default:
		return ""
	}
}

func (a *Authenticator) neverJWT(rest string) string {
	issuer, _, _ := strings.Cut(rest, ":")
	for _, set := range a.sets {
		if issuer == "*" || issuer == set.Name() {
			return ""
		}
	}
	return "auth.issuers has no issuer of that name"
}

func (a *Authenticator) neverCertificate(kind, rest string) string {
	domain, path, hasPath := strings.Cut(strings.TrimPrefix(rest, "//"), "/")
	switch {
	case !a.certificates:
		return "no listener has a client_ca_file, so callers have no certificates"
	case kind == "dns" && a.trustDomain != "":
		return "with auth.mtls.trust_domain callers are named by the SPIFFE id of their certificate"
	case kind == "dns":
		return ""
	case a.trustDomain == "":
		return "auth.mtls.trust_domain is empty, so callers are named by the first DNS name of their certificate"
	case domain != "*" && domain != a.trustDomain:
		return "auth.mtls.trust_domain is " + a.trustDomain
	case domain != "*" && (!hasPath || path == ""):
		return "the SPIFFE id of a caller has a path"
	default:
		return ""
	}
}
