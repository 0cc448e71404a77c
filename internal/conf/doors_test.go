package conf

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// opened is a podlink on the network whose callers prove who they are, with further keys.
func opened(auth, server string) string {
	return "server: {http: {addr: \":80\", tls: {enabled: true, cert_file: c, key_file: k}}, grpc: {addr: \":90\", " +
		"tls: {enabled: true, cert_file: c, key_file: k}}" + server + "}\n" +
		"data: {redis: {mode: standalone}}\nauth: {mode: required, policy_file: p" + auth + "}\n"
}

const issuer = ", issuers: [{name: k8s, issuer: i, audiences: [podlink], jwks_url: \"https://h/keys\"}]"

// TestDoors: every contradiction about who may call is refused, with the path of the key.
func TestDoors(t *testing.T) {
	for name, row := range map[string]struct{ text, want string }{
		"open to the network": {
			"server: {grpc: {addr: \"0.0.0.0:9000\"}}\ndata: {redis: {mode: standalone}}",
			"auth.mode must be required, because server.grpc.addr 0.0.0.0:9000 is not on loopback",
		},
		"insecure, and required": {opened(", allow_insecure: true, tokens_file: t", ""), "auth.allow_insecure is for auth.mode \"off\""},
		"no proof":               {opened("", ""), "auth.mode required needs a way to prove who one is"},
		"no policy":              {"auth: {mode: required, tokens_file: t}", "auth.policy_file is required"},
		"tokens in plaintext": {
			"server: {http: {addr: \":80\"}}\ndata: {redis: {mode: standalone}}\nauth: {mode: required, policy_file: p, tokens_file: t}",
			"server.http.tls.enabled must be true: server.http.addr :80 is not on loopback",
		},
		"a policy without a door": {"auth: {policy_file: p}", "auth.policy_file is for auth.mode required"},
		"mode":                    {"auth: {mode: maybe}", "auth.mode must be one of off, required"},
		"rate":                    {"auth: {rate: 0}", "auth.rate must be from 1"},
		"trust domain": {
			opened(", tokens_file: t, mtls: {trust_domain: \"spiffe://x\"}", ""), "auth.mtls.trust_domain must be a name",
		},
		"issuer without an audience": {
			opened(", issuers: [{name: k8s, issuer: i, jwks_file: f}]", ""), "auth.issuers[0].audiences must name at least one",
		},
		"issuer without keys": {
			opened(", issuers: [{name: k8s, issuer: i, audiences: [a]}]", ""), "auth.issuers[0] must have either jwks_file or jwks_url",
		},
		"keys over plaintext": {
			opened(", issuers: [{name: k8s, issuer: i, audiences: [a], jwks_url: \"http://h/keys\"}]", ""), "must begin with https://",
		},
		"two issuers of a name": {
			opened(", issuers: [{name: a, issuer: i, audiences: [a], jwks_file: f}, {name: a, issuer: j, audiences: [a], jwks_file: f}]", ""),
			"auth.issuers[1].name",
		},
		"an unknown key of an issuer": {opened(", issuers: [{secret: x}]", ""), "auth.issuers[0].secret is not a known key"},
		"an issuer that is text":      {opened(", issuers: [x]", ""), "auth.issuers[0] must be a section with keys"},
		"issuers that are a section":  {opened(", issuers: {name: x}", ""), "auth.issuers must be a list"},
		"certificate without its key": {
			"server: {http: {tls: {enabled: true, cert_file: c}}}", "server.http.tls must have both cert_file and key_file",
		},
		"certificate in plaintext": {"server: {admin: {tls: {cert_file: c, key_file: k}}}", "server.admin.tls.enabled must be true"},
		"client_auth without a CA": {
			"server: {http: {tls: {enabled: true, cert_file: c, key_file: k, client_auth: require}}}",
			"server.http.tls must have both client_ca_file",
		},
		"an old version of TLS":        {"server: {http: {tls: {min_version: \"1.1\"}}}", "server.http.tls.min_version must be one of"},
		"a host with a port":           {"server: {http: {hosts: [\"a:1\"]}}", "server.http.hosts[0] must be a host name without a port"},
		"streams":                      {"server: {grpc: {max_streams: 0}}", "server.grpc.max_streams"},
		"age of connections":           {"server: {grpc: {max_connection_age: 1ms}}", "server.grpc.max_connection_age"},
		"idle connections":             {"server: {http: {idle_timeout: 0s}}", "server.http.idle_timeout"},
		"connections":                  {"server: {max_connections: 0}", "server.max_connections"},
		"calls in flight":              {"server: {max_in_flight: 0}", "server.max_in_flight"},
		"watches":                      {"server: {max_watches: 0}", "server.max_watches must"},
		"watches of a caller":          {"server: {max_watches_per_caller: 0}", "server.max_watches_per_caller"},
		"watched services":             {"server: {max_watched_services: 0}", "server.max_watched_services"},
		"traces that callers decide":   {"trace: {max_forced: -1}", "trace.max_forced"},
		"changes in the audit log":     {"audit: {mutations: some}", "audit.mutations must be one of"},
		"uids in the audit log":        {"audit: {uids: no}", "audit.uids must be one of"},
		"a short key of the audit log": {"audit: {uid_key: short}", "audit.uid_key must have at least 16 characters"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := load(t, row.text, nil)
			require.ErrorContains(t, err, row.want)
		})
	}
}

// TestOpenDoors: what is secure is taken, and what is printed can be read again.
func TestOpenDoors(t *testing.T) {
	for name, text := range map[string]string{
		"issuers":              "auth: {mode: required, policy_file: p" + issuer + "}",
		"tokens":               "auth: {mode: required, policy_file: p, tokens_file: t}",
		"admin on the network": "server: {admin: {addr: \":8001\"}}\ndata: {redis: {mode: standalone}}",
		"insecure, as asked":   "server: {http: {addr: \":80\"}}\ndata: {redis: {mode: standalone}}\nauth: {allow_insecure: true}",
	} {
		t.Run(name, func(t *testing.T) {
			b, err := load(t, text, nil)
			require.NoError(t, err)
			printed, err := b.YAML()
			require.NoError(t, err)
			again, err := load(t, printed, nil)
			require.NoError(t, err, printed)
			require.Equal(t, printed, func() string { text, _ := again.YAML(); return text }())
		})
	}
}
