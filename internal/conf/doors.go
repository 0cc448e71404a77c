package conf

import (
	"fmt"
	"net/url"
	"regexp"
	"strings"
	"time"
)

// bounds checks what a listener takes at most.
func (v *violations) bounds(c *Server) {
	v.duration("server.http.idle_timeout", c.GetHttp().GetIdleTimeout().AsDuration(), time.Second, time.Hour)
	v.between("server.grpc.max_streams", c.GetGrpc().GetMaxStreams(), 1, 100_000)
	v.duration("server.grpc.max_connection_age", c.GetGrpc().GetMaxConnectionAge().AsDuration(), time.Second, 24*time.Hour)
	v.between("server.max_connections", c.GetMaxConnections(), 1, 1_000_000)
	v.between("server.max_connections_per_peer", c.GetMaxConnectionsPerPeer(), 1, 1_000_000)
	v.between("server.max_in_flight", c.GetMaxInFlight(), 1, 1_000_000)
	v.between("server.max_watches", c.GetMaxWatches(), 1, 1_000_000)
	v.between("server.max_watches_per_caller", c.GetMaxWatchesPerCaller(), 1, 1_000_000)
	v.between("server.max_watched_services", c.GetMaxWatchedServices(), 1, 100_000)
	v.hosts("server.http.hosts", c.GetHttp().GetHosts())
	v.hosts("server.admin.hosts", c.GetAdmin().GetHosts())
	tls := c.ListenerTLS()
	for _, path := range sortedKeys(tls) {
		v.serverTLS(path, tls[path])
	}
}

// ListenerTLS returns the TLS sections of the listeners by their YAML path.
func (x *Server) ListenerTLS() map[string]*ServerTLS {
	return map[string]*ServerTLS{
		"server.http.tls": x.GetHttp().GetTls(), "server.grpc.tls": x.GetGrpc().GetTls(), "server.admin.tls": x.GetAdmin().GetTls(),
	}
}

var hostPattern = regexp.MustCompile(`^[A-Za-z0-9._-]{1,253}$`)

func (v *violations) hosts(path string, hosts []string) {
	for i, host := range hosts {
		if !hostPattern.MatchString(host) {
			v.add(fmt.Sprintf("%s[%d]", path, i), "must be a host name without a port, is %q", host)
		}
	}
}

func (v *violations) serverTLS(path string, c *ServerTLS) {
	v.oneOf(path+".client_auth", c.GetClientAuth(), ClientAuthNone, ClientAuthOptional, ClientAuthRequire)
	v.oneOf(path+".min_version", c.GetMinVersion(), "1.2", "1.3")
	if !c.GetEnabled() {
		if c.GetCertFile()+c.GetKeyFile()+c.GetClientCaFile() != "" || c.GetClientAuth() != ClientAuthNone {
			v.add(path+".enabled", "must be true when another key of %s is set, or the listener is in plaintext", path)
		}
		return
	}
	if c.GetCertFile() == "" || c.GetKeyFile() == "" {
		v.add(path, "must have both cert_file and key_file")
	}
	if asks := c.GetClientAuth() != ClientAuthNone; asks != (c.GetClientCaFile() != "") {
		v.add(path, "must have both client_ca_file and a client_auth of optional or require, or neither")
	}
}

// TakesCertificates reports whether callers may prove who they are with a certificate.
func (x *Server) TakesCertificates() bool {
	return x.GetHttp().GetTls().GetClientCaFile() != "" || x.GetGrpc().GetTls().GetClientCaFile() != ""
}

// Insecure returns the addresses of the API's listeners that are not on loopback, by their YAML path, if everyone may do
// everything there; else none.
func (b *Bootstrap) Insecure() map[string]string {
	exposed := make(map[string]string)
	if b.GetAuth().GetMode() != AuthOff {
		return exposed
	}
	for path, addr := range b.GetServer().apiListeners() {
		if !Loopback(addr) {
			exposed[path] = addr
		}
	}
	return exposed
}

func (x *Server) apiListeners() map[string]string {
	return map[string]string{"server.http.addr": x.GetHttp().GetAddr(), "server.grpc.addr": x.GetGrpc().GetAddr()}
}

func (v *violations) auth(b *Bootstrap) {
	c := b.GetAuth()
	v.oneOf("auth.mode", c.GetMode(), AuthOff, AuthRequired)
	if rate := c.GetRate(); !(rate >= 1 && rate <= 1_000_000) { // Also rejects NaN.
		v.add("auth.rate", "must be from 1 to 1000000, is %v", rate)
	}
	if d := c.GetMtls().GetTrustDomain(); d != "" && !trustDomainPattern.MatchString(d) {
		v.add("auth.mtls.trust_domain", "must be a name such as example.org, without spiffe://, is %q", d)
	}
	v.issuers(c.GetIssuers())
	v.profiles(b)
	if c.GetMode() == AuthOff {
		v.authOff(b)
		return
	}
	if c.GetAllowInsecure() {
		v.add("auth.allow_insecure", "is for auth.mode \"off\"")
	}
	if c.GetPolicyFile() == "" {
		v.add("auth.policy_file", "is required with auth.mode required: without a rule no call is allowed")
	}
	bearers := c.GetTokensFile() != "" || len(c.GetIssuers()) > 0
	if !bearers && !b.GetServer().TakesCertificates() {
		v.add("auth.mode", "required needs a way to prove who one is: auth.issuers, auth.tokens_file, or a client_ca_file of a listener")
	}
	tls := map[string]bool{
		"server.http": b.GetServer().GetHttp().GetTls().GetEnabled(), "server.grpc": b.GetServer().GetGrpc().GetTls().GetEnabled(),
	}
	addrs := b.GetServer().apiListeners()
	for _, path := range sortedKeys(tls) {
		if addr := addrs[path+".addr"]; bearers && !tls[path] && !Loopback(addr) {
			v.add(path+".tls.enabled", "must be true: %s.addr %s is not on loopback, and tokens would cross the network in plaintext",
				path, addr)
		}
	}
}

// profiles rejects Go's profiles that nobody could read.
func (v *violations) profiles(b *Bootstrap) {
	admin := b.GetServer().GetAdmin()
	switch {
	case !admin.GetPprof():
	case b.GetAuth().GetMode() == AuthOff && !Loopback(admin.GetAddr()):
		v.add("server.admin.pprof", "must be false: server.admin.addr %s is not on loopback, and with auth.mode off profiles are only for "+
			"callers from this machine", admin.GetAddr())
	case b.GetAuth().GetMode() == AuthRequired && !admin.GetTls().GetEnabled():
		v.add("server.admin.tls.enabled", "must be true with server.admin.pprof and auth.mode required: profiles are for callers with the role "+
			"admin, over TLS")
	}
}

// authOff rejects a podlink that is open to the network, and keys that would have no effect.
func (v *violations) authOff(b *Bootstrap) {
	c := b.GetAuth()
	unused := map[string]bool{
		"auth.policy_file": c.GetPolicyFile() != "", "auth.tokens_file": c.GetTokensFile() != "", "auth.issuers": len(c.GetIssuers()) > 0,
		"auth.mtls.trust_domain": c.GetMtls().GetTrustDomain() != "",
	}
	for _, path := range sortedKeys(unused) {
		if unused[path] {
			v.add(path, "is for auth.mode required, mode is off")
		}
	}
	exposed := b.Insecure()
	if c.GetAllowInsecure() {
		return
	}
	for _, path := range sortedKeys(exposed) {
		v.add("auth.mode", "must be required, because %s %s is not on loopback and whoever reaches it could move every user; or set "+
			"auth.allow_insecure to true: docs/security.md", path, exposed[path])
	}
}

var (
	trustDomainPattern = regexp.MustCompile(`^[a-z0-9._-]{1,255}$`)
	issuerPattern      = regexp.MustCompile(`^[a-z0-9-]{1,64}$`)
)

func (v *violations) issuers(issuers []*Auth_Issuer) {
	names, urls := make(map[string]bool), make(map[string]bool)
	for i, c := range issuers {
		path := fmt.Sprintf("auth.issuers[%d]", i)
		if !issuerPattern.MatchString(c.GetName()) || names[c.GetName()] {
			v.add(path+".name", "must be 1 to 64 characters a-z 0-9 -, and no other issuer's, is %q", c.GetName())
		}
		if c.GetIssuer() == "" || urls[c.GetIssuer()] {
			v.add(path+".issuer", "must be the text of the claim iss, and no other issuer's")
		}
		names[c.GetName()], urls[c.GetIssuer()] = true, true
		if len(c.GetAudiences()) == 0 {
			v.add(path+".audiences", "must name at least one audience, or a token for any other service would do")
		}
		if (c.GetJwksFile() == "") == (c.GetJwksUrl() == "") {
			v.add(path, "must have either jwks_file or jwks_url")
		}
		if c.GetJwksUrl() == "" && c.GetCaFile()+c.GetTokenFile() != "" {
			v.add(path, "has ca_file or token_file, which are for jwks_url")
		}
		v.jwksURL(path+".jwks_url", c.GetJwksUrl())
	}
}

func (v *violations) jwksURL(path, text string) {
	if text == "" {
		return
	}
	u, err := url.Parse(text)
	switch {
	case err != nil || u.Host == "" || u.User != nil:
		v.add(path, "must be a URL such as https://issuer.example/keys")
	case u.Scheme == "https":
	case u.Scheme == "http" && Loopback(strings.TrimSuffix(u.Host, ":"+u.Port())+":"+u.Port()):
	default:
		v.add(path, "must begin with https://, except on loopback: whoever changes the keys on the way could be anyone")
	}
}

func (v *violations) audit(c *Audit) {
	v.oneOf("audit.mutations", c.GetMutations(), MutationsOfOperators, MutationsAll)
	v.oneOf("audit.uids", c.GetUids(), UIDsHashed, UIDsPlain)
	if n := len(c.GetUidKey()); n > 0 && n < 16 {
		v.add("audit.uid_key", "must have at least 16 characters")
	}
}
