package conf

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	tlstest "podlink/test/kit/tls"
)

// load loads a configuration file with that text, in that environment.
func load(t *testing.T, text string, env map[string]string) (*Bootstrap, error) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "config.yaml")
	require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
	return Load(path, environment(env))
}

// environment returns a list of name=value.
func environment(env map[string]string) []string {
	list := []string{"HOME=/root"}
	for _, name := range sortedKeys(env) {
		list = append(list, name+"="+env[name])
	}
	return list
}

func TestShippedConfigIsTheDefault(t *testing.T) {
	shipped, err := Load("../../configs/config.yaml", environment(nil))
	require.NoError(t, err)
	require.True(t, proto.Equal(Default(), shipped), "configs/config.yaml differs from the defaults:\n%v\n%v", shipped, Default())

	folder, err := Load("../../configs", environment(nil))
	require.NoError(t, err)
	require.True(t, proto.Equal(shipped, folder), "-conf accepts a folder too")

	none, err := Load("", environment(nil))
	require.NoError(t, err)
	require.True(t, proto.Equal(shipped, none), "without -conf the defaults apply")
}

func TestShippedConfigDocumentsEveryKey(t *testing.T) {
	text, err := os.ReadFile("../../configs/config.yaml")
	require.NoError(t, err)
	for _, path := range keys(Default().ProtoReflect(), "") {
		name := path[strings.LastIndex(path, ".")+1:]
		require.Regexp(t, `(?m)^ +`+name+`:.*#`, string(text), path)
	}
}

func TestFileOverridesSomeKeysAndLeavesTheRest(t *testing.T) {
	b, err := load(t, `
data: {redis: {mode: standalone, addrs: ["10.0.0.1:6379"], read_timeout: 250ms, allow_eviction: true}}
limits: {max_batch: 5}
`, nil)
	require.NoError(t, err)
	want := Default()
	want.Data.Redis.Mode = ModeStandalone
	want.Data.Redis.Addrs = []string{"10.0.0.1:6379"}
	want.Data.Redis.ReadTimeout.Nanos = int32(250 * time.Millisecond)
	want.Data.Redis.AllowEviction = true
	want.Limits.MaxBatch = 5
	require.True(t, proto.Equal(want, b), "%v", b)
}

func TestFolderIsMergedInTheOrderOfItsNames(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600))
	}
	write("a.yaml", "limits: {max_batch: 1}\nlog: {level: warn}")
	write("b.json", `{"limits": {"max_batch": 2}}`)
	write(".hidden", "nonsense: true")
	b, err := Load(dir, environment(nil))
	require.NoError(t, err)
	require.EqualValues(t, 2, b.Limits.MaxBatch)
	require.Equal(t, "warn", b.Log.Level)

	write("README.md", "# notes")
	_, err = Load(dir, environment(nil))
	require.ErrorContains(t, err, "README.md: must be a .yaml, .yml or .json file")

	_, err = Load(t.TempDir(), environment(nil))
	require.ErrorContains(t, err, "the folder has no configuration file")
	_, err = Load(filepath.Join(dir, "absent.yaml"), environment(nil))
	require.ErrorIs(t, err, os.ErrNotExist)
}

func TestEnvironmentOverridesEveryKey(t *testing.T) {
	t.Chdir(t.TempDir())
	for _, prefix := range []string{"", "t", "r"} { // The files of each TLS section: ca, cert and key; tca …
		ca := tlstest.New(t, ".", "authority")
		ca.Sign(t, "signed", "host", time.Now().Add(time.Hour))
		for from, to := range map[string]string{"authority.crt": "ca", "signed.crt": "cert", "signed.key": "key"} {
			require.NoError(t, os.Rename(from, prefix+to))
		}
	}
	values := map[string]string{
		"server.http.addr": "127.0.0.1:1", "server.http.timeout": "2s",
		"server.grpc.addr": "127.0.0.1:2", "server.grpc.timeout": "3s",
		"server.admin.addr": "127.0.0.1:3", "server.admin.pprof": "true",
		"server.stop.drain": "4s", "server.stop.timeout": "5s",
		"data.redis.mode": "sentinel", "data.redis.addrs": "h:1, h:2", "data.redis.master_name": "m",
		"data.redis.username": "u", "data.redis.password": "p", "data.redis.db": "3", "data.redis.prefix": "x",
		"data.redis.pool_size": "7", "data.redis.min_idle_conns": "6", "data.redis.pool_timeout": "5ms",
		"data.redis.dial_timeout": "6ms", "data.redis.read_timeout": "7ms", "data.redis.write_timeout": "8ms",
		"data.redis.allow_eviction": "true", "data.redis.allow_embedded": "true", "data.redis.auto_pipeline": "false",
		"data.redis.conn_max_idle_time": "45s",
		"data.redis.wait_replicas":      "2", "data.redis.wait_timeout": "4ms",
		"data.redis.sentinel_username": "su", "data.redis.sentinel_password": "sp",
		"data.redis.tls.enabled": "true", "data.redis.tls.server_name": "redis",
		"state.pod_ttl": "9s", "limits.max_batch": "10", "limits.max_pods": "11", "limits.max_services": "12", "limits.max_jobs": "13",
		"state.forget_after": "13h0m0s",
		"log.level":          "error", "log.format": "console", "log.file": "podlink.log",
		"log.slow_request": "20ms", "log.repeat_interval": "30s",
		"trace.endpoint": "collector:4317", "trace.sampling_ratio": "0.25", "trace.parent_based": "false", "trace.headers": "a=b, c=d",
		"trace.tls.enabled": "true", "trace.tls.server_name": "collector",
		"registry.type": "consul", "registry.addrs": "e:1", "registry.username": "ru", "registry.password": "rp", "registry.token": "rt",
		"registry.namespace": "/ns", "registry.ttl": "20s", "registry.endpoints": "grpc://h:1", "registry.metadata": "a=b",
		"registry.tls.enabled": "true", "registry.tls.server_name": "etcd",
		"server.http.idle_timeout": "7s", "server.http.hosts": "a, b", "server.admin.hosts": "c",
		"server.grpc.max_streams": "8", "server.grpc.max_connection_age": "5m0s",
		"server.max_connections": "9", "server.max_connections_per_peer": "10", "server.max_in_flight": "11", "trace.max_forced": "0.5",
		"server.max_watches": "12", "server.max_watches_per_caller": "13", "server.max_watched_services": "14",
		"auth.mode": "required", "auth.allow_insecure": "false", "auth.policy_file": "policy", "auth.tokens_file": "tokens",
		"auth.mtls.trust_domain": "example.org", "auth.rate": "12",
		"audit.file": "audit.log", "audit.mutations": "all", "audit.uids": "plain", "audit.uid_key": "0123456789abcdef",
		"fleet.index": "false", "fleet.feed_max_age": "14m0s", "fleet.census_rate": "15000", "fleet.sweep_every": "16h0m0s",
		"fleet.job_rate": "17",
	}
	for _, listener := range []string{"server.http", "server.grpc", "server.admin"} {
		values[listener+".tls.enabled"], values[listener+".tls.min_version"] = "true", "1.2"
		values[listener+".tls.client_auth"] = "optional"
	}
	ca := tlstest.New(t, t.TempDir(), "ca")
	ca.Sign(t, "client", "podlink", time.Now().Add(time.Hour))
	for _, section := range []string{"data.redis", "trace", "registry"} {
		values[section+".tls.ca_file"] = ca.Path("ca.crt")
		values[section+".tls.cert_file"], values[section+".tls.key_file"] = ca.Path("client.crt"), ca.Path("client.key")
	}
	for _, listener := range []string{"server.http", "server.grpc", "server.admin"} {
		values[listener+".tls.client_ca_file"] = ca.Path("ca.crt")
		values[listener+".tls.cert_file"], values[listener+".tls.key_file"] = ca.Path("client.crt"), ca.Path("client.key")
	}
	paths := keys(Default().ProtoReflect(), "")
	paths = slices.DeleteFunc(paths, func(path string) bool { return path == "auth.issuers" }) // A list of sections is set in the file alone.
	require.Empty(t, slices.DeleteFunc(paths, func(path string) bool { return values[path] != "" }), "keys without a row here")
	env := map[string]string{"PODLINK_PORT": "tcp://10.0.0.1:8000", "PODLINK_SERVICE_HOST": "10.0.0.1"} // As Kubernetes sets them.
	for path, value := range values {
		env[EnvPrefix+strings.ToUpper(strings.ReplaceAll(path, ".", "_"))] = value
	}
	b, err := load(t, "data: {redis: {password: from-the-file}}", env)
	require.NoError(t, err)
	require.Equal(t, []string{"h:1", "h:2"}, b.Data.Redis.Addrs)
	require.Equal(t, "p", b.Data.Redis.Password)
	require.Equal(t, 7*time.Millisecond, b.Data.Redis.ReadTimeout.AsDuration())
	require.True(t, b.Data.Redis.AllowEviction)
	got := texts(b.ProtoReflect(), "")
	for path, value := range values {
		require.Equal(t, value, got[path], path)
	}
}

func TestWrongFiles(t *testing.T) {
	for name, row := range map[string]struct{ text, want string }{
		"unknown key":                {"servers: {}", "servers is not a known key"},
		"unknown key below":          {"data: {redis: {addr: x}}", "data.redis.addr is not a known key"},
		"key in camel case":          {"data: {redis: {poolSize: 1}}", "data.redis.poolSize is not a known key"},
		"value for a section":        {"data: {redis: 127.0.0.1}", "data.redis must be a section"},
		"section for a value":        {"limits: {max_batch: {a: 1}}", "limits.max_batch must be a single value"},
		"list for a value":           {"limits: {max_batch: [1]}", "limits.max_batch must not be a list"},
		"list for a section":         {"data: [redis]", "data must not be a list"},
		"value for a list":           {"data: {redis: {addrs: h:1}}", "data.redis.addrs must be a list"},
		"number in a list":           {"data: {redis: {addrs: [6379]}}", "data.redis.addrs[0] must be text"},
		"no value":                   {"data: {redis: {password: }}", "data.redis.password has no value"},
		"text for a number":          {`limits: {max_batch: "5"}`, "limits.max_batch must be of type int32; remove the quotes"},
		"fraction for an integer":    {"limits: {max_batch: 1.5}", "limits.max_batch must be an integer"},
		"too large for 32 bits":      {"limits: {max_batch: 3000000000}", "limits.max_batch must be an integer of 32 bits"},
		"number for text":            {"data: {redis: {password: 12345}}", "data.redis.password must be text; put it in quotes"},
		"number for a duration":      {"state: {pod_ttl: 30}", "state.pod_ttl must be a duration such as 30s"},
		"nonsense for a duration":    {"state: {pod_ttl: 30 sec}", "state.pod_ttl must be a duration such as 500ms"},
		"text for a switch":          {`data: {redis: {allow_eviction: "yes"}}`, "data.redis.allow_eviction must be of type bool"},
		"key twice":                  {"log: {level: info}\nlog: {level: warn}", "already defined"},
		"no YAML":                    {"a: b: c", "yaml"},
		"list at the top":            {"- a", "yaml"},
		"anchor into another's type": {"log: &a {level: info}\nlimits: *a", "limits.level is not a known key"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := load(t, row.text, nil)
			require.ErrorContains(t, err, row.want)
			require.NotContains(t, err.Error(), "12345", "an error contains a password")
		})
	}
}

// TestUnusableFiles: a file that TLS can't use stops the start, and is named with its key.
func TestUnusableFiles(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ca.pem")
	require.NoError(t, os.WriteFile(path, []byte("12345"), 0o600))
	for section, text := range map[string]string{
		"data.redis.tls": "data: {redis: {mode: standalone, tls: {enabled: true, FILES}}}",
		"trace.tls":      "trace: {endpoint: \"h:4317\", tls: {enabled: true, FILES}}",
		"registry.tls":   "data: {redis: {mode: standalone}}\nregistry: {type: etcd, tls: {enabled: true, FILES}}",
	} {
		for files, want := range map[string]string{
			"ca_file: " + path:                           section + ".ca_file: no PEM certificate in the file",
			"ca_file: " + path + ".missing":              section + ".ca_file: open " + path + ".missing",
			"cert_file: " + path + ", key_file: " + path: section + ".cert_file, " + section + ".key_file: ",
		} {
			_, err := load(t, strings.ReplaceAll(text, "FILES", files), nil)
			require.ErrorContains(t, err, want)
			require.NotContains(t, err.Error(), "12345")
		}
	}
}

// TestMaskedSecrets: what -check prints instead of a secret is not used as one.
func TestMaskedSecrets(t *testing.T) {
	for text, want := range map[string]string{
		`data: {redis: {mode: standalone, password: "***"}}`:                          "data.redis.password is ***",
		`data: {redis: {mode: sentinel, sentinel_password: "***"}}`:                   "data.redis.sentinel_password is ***",
		`{data: {redis: {mode: standalone}}, registry: {type: consul, token: "***"}}`: "registry.token is ***",
		`trace: {endpoint: "127.0.0.1:4317", headers: ["a=b", "token=***"]}`:          "trace.headers[1] is ***",
	} {
		_, err := load(t, text, nil)
		require.ErrorContains(t, err, want+", which -check prints instead of a secret", text)
	}
	_, err := load(t, `data: {redis: {mode: standalone, password: "***"}}`, map[string]string{"PODLINK_DATA_REDIS_PASSWORD": "p"})
	require.NoError(t, err, "the environment sets the secret")
	_, err = load(t, `data: {redis: {mode: standalone, password: "****"}}`, nil)
	require.NoError(t, err)
}

func TestWrongEnvironment(t *testing.T) {
	_, err := Load("", environment(map[string]string{"PODLINK_LIMITS_MAX_BATCH": "many"}))
	require.EqualError(t, err, "configuration: PODLINK_LIMITS_MAX_BATCH must be an integer of 32 bits")
	_, err = Load("", environment(map[string]string{"PODLINK_DATA_REDIS_ALLOW_EVICTION": "1"}))
	require.EqualError(t, err, "configuration: PODLINK_DATA_REDIS_ALLOW_EVICTION must be true or false")
}

func TestContradictions(t *testing.T) {
	for name, row := range map[string]struct{ text, want string }{
		"address without port":       {"server: {http: {addr: localhost}}", "server.http.addr must be host:port"},
		"address with a wrong port":  {"server: {grpc: {addr: \"h:70000\"}}", "server.grpc.addr must be host:port"},
		"address with an empty port": {"server: {admin: {addr: \"h:\"}}", "server.admin.addr must be host:port"},
		"address is a URL":           {"server: {admin: {addr: \"http://h:1\"}}", "server.admin.addr must be host:port"},
		"one address twice":          {"server: {grpc: {addr: 127.0.0.1:8000}}", "server.http.addr must differ from server.grpc.addr"},
		"request timeout of zero":    {"server: {http: {timeout: 0s}}", "server.http.timeout must be from 1ms to 1m0s, is 0s"},
		"store slower than requests": {"data: {redis: {read_timeout: 1s}}", "data.redis.read_timeout must be below server.grpc.timeout (1s)"},
		"negative drain":             {"server: {stop: {drain: -1s}}", "server.stop.drain must be from 0s"},
		"stop timeout of zero":       {"server: {stop: {timeout: 0s}}", "server.stop.timeout must be from 1s"},
		"unknown mode":               {"data: {redis: {mode: redis}}", "data.redis.mode must be one of embedded, standalone, sentinel, cluster"},
		"standalone, two addresses": {
			"data: {redis: {mode: standalone, addrs: [\"h:1\", \"h:2\"]}}",
			"data.redis.addrs must name one host:port",
		},
		"no address":                {"data: {redis: {mode: cluster, addrs: []}}", "data.redis.addrs must name at least one host:port"},
		"wrong address":             {"data: {redis: {mode: cluster, addrs: [h]}}", "data.redis.addrs[0] must be host:port"},
		"sentinel without master":   {"data: {redis: {mode: sentinel, master_name: \"\"}}", "data.redis.master_name is required"},
		"cluster with a database":   {"data: {redis: {mode: cluster, db: 1}}", "data.redis.db must be 0 with mode cluster"},
		"negative database":         {"data: {redis: {db: -1}}", "data.redis.db must be from 0"},
		"username without password": {"data: {redis: {username: u}}", "data.redis.password is required with a username"},
		"sentinel's user alone":     {"data: {redis: {mode: sentinel, sentinel_username: u}}", "data.redis.sentinel_password is required"},
		"sentinel's password": {
			"data: {redis: {mode: cluster, sentinel_password: p}}",
			"data.redis.sentinel_password is for mode sentinel only, mode is cluster",
		},
		"negative number of replicas": {"data: {redis: {wait_replicas: -1}}", "data.redis.wait_replicas must be from 0 to 10"},
		"replicas without a Redis":    {"data: {redis: {wait_replicas: 1}}", "data.redis.wait_replicas must be 0 with mode embedded"},
		"wait_timeout of zero":        {"data: {redis: {wait_timeout: 0s}}", "data.redis.wait_timeout must be from 1ms"},
		"wait_timeout above read_timeout": {
			"data: {redis: {mode: standalone, wait_replicas: 1, wait_timeout: 500ms}}",
			"data.redis.wait_timeout must be below data.redis.read_timeout (500ms)",
		},
		"prefix with a separator": {"data: {redis: {prefix: \"a:b\"}}", "data.redis.prefix must be"},
		"empty prefix":            {"data: {redis: {prefix: \"\"}}", "data.redis.prefix must be"},
		"connections that are never idle": {
			"data: {redis: {conn_max_idle_time: 0s}}", "data.redis.conn_max_idle_time must be from 1s to 24h0m0s, is 0s",
		},
		"empty pool":                {"data: {redis: {pool_size: 0}}", "data.redis.pool_size must be from 1"},
		"more idle than the pool":   {"data: {redis: {pool_size: 1}}", "data.redis.min_idle_conns must be from 0 to 1, is 2"},
		"TLS to the embedded store": {"data: {redis: {tls: {enabled: true}}}", "data.redis.tls.enabled must be false with mode embedded"},
		"certificate without key": {
			"data: {redis: {mode: standalone, tls: {enabled: true, cert_file: c}}}",
			"data.redis.tls must have both cert_file and key_file",
		},
		"CA without TLS":           {"data: {redis: {mode: standalone, tls: {ca_file: c}}}", "data.redis.tls.enabled must be true"},
		"ttl below a second":       {"state: {pod_ttl: 100ms}", "state.pod_ttl must be from 1s"},
		"ttl of half seconds":      {"state: {pod_ttl: 1500ms}", "state.pod_ttl must be whole seconds, is 1.5s"},
		"no batch":                 {"limits: {max_batch: 0}", "limits.max_batch must be from 1"},
		"no pods":                  {"limits: {max_pods: 0}", "limits.max_pods must be from 1"},
		"too many pods":            {"limits: {max_pods: 10001}", "limits.max_pods must be from 1 to 10000"},
		"no services":              {"limits: {max_services: 0}", "limits.max_services must be from 1"},
		"no jobs":                  {"limits: {max_jobs: 0}", "limits.max_jobs must be from 1 to 10000"},
		"forgotten at once":        {"state: {forget_after: 0s}", "state.forget_after must be from 1s"},
		"unknown level":            {"log: {level: loud}", "log.level must be one of debug, info, warn, error"},
		"unknown format":           {"log: {format: xml}", "log.format must be one of json, console"},
		"negative threshold":       {"log: {slow_request: -1s}", "log.slow_request must be from 0s to 1m0s"},
		"interval of an hour":      {"log: {repeat_interval: 1h}", "log.repeat_interval must be from 0s to 1m0s"},
		"more than every trace":    {"trace: {sampling_ratio: 1.5}", "trace.sampling_ratio must be from 0 to 1, is 1.5"},
		"ratio is NaN":             {"trace: {sampling_ratio: .nan}", "trace.sampling_ratio must be from 0 to 1, is NaN"},
		"endpoint is a URL":        {"trace: {endpoint: \"http://h:4317\"}", "trace.endpoint must be host:port"},
		"header without a value":   {"trace: {endpoint: \"localhost:4317\", headers: [token]}", "trace.headers[0] must be name=value"},
		"header that gRPC refuses": {"trace: {endpoint: \"localhost:4317\", headers: [\"Token=x\"]}", "trace.headers[0] must be name=value"},
		"headers in plaintext": {
			"trace: {endpoint: \"h:4317\", headers: [\"token=12345\"]}",
			"trace.tls.enabled must be true with trace.headers",
		},
		"TLS without an endpoint":  {"trace: {tls: {enabled: true}}", "trace.endpoint is required"},
		"traces' key without TLS":  {"trace: {tls: {cert_file: c, key_file: k}}", "trace.tls.enabled must be true"},
		"unknown registry":         {"registry: {type: zookeeper}", "registry.type must be one of none, etcd, consul, kubernetes"},
		"registry without address": {"registry: {type: etcd, addrs: []}", "registry.addrs must name at least one host:port"},
		"registry at a URL":        {"registry: {addrs: [\"http://h:2379\"]}", "registry.addrs[0] must be host:port"},
		"agent without address":    {"registry: {type: consul, addrs: []}", "registry.addrs must name one host:port with type consul"},
		"two agents": {
			"registry: {type: consul, addrs: [\"h:1\", \"h:2\"]}",
			"registry.addrs must name one host:port with type consul, that of the agent, has 2",
		},
		"Consul's token for etcd": {"registry: {type: etcd, token: \"12345\"}", "registry.token is for type consul only, type is etcd"},
		"token for Kubernetes": {
			"registry: {type: kubernetes, token: \"12345\"}",
			"registry.token is for type consul only, type is kubernetes",
		},
		"endpoints in Kubernetes": {
			"registry: {type: kubernetes, endpoints: [\"grpc://h:9000\"]}",
			"registry.endpoints must not be set with type kubernetes",
		},
		"TLS files for Kubernetes": {
			"registry: {type: kubernetes, tls: {enabled: true}}",
			"registry.tls.enabled must not be set with type kubernetes",
		},
		"user for Kubernetes": {
			"registry: {type: kubernetes, username: u, password: \"12345\"}",
			"registry.username must not be set with type kubernetes",
		},
		"registry's user alone":       {"registry: {username: u}", "registry.password is required"},
		"namespace without a root":    {"registry: {namespace: apps}", "registry.namespace must begin with /"},
		"ttl too short":               {"registry: {ttl: 1s}", "registry.ttl must be from 5s"},
		"registry's ttl of fractions": {"registry: {ttl: 5500ms}", "registry.ttl must be whole seconds"},
		"endpoint without a scheme":   {"registry: {endpoints: [\"h:9000\"]}", "registry.endpoints[0] must look like grpc://"},
		"endpoint without a port":     {"registry: {endpoints: [\"grpc://h\"]}", "registry.endpoints[0] must be host:port"},
		"endpoint without a host":     {"registry: {endpoints: [\"grpc://:9000\"]}", "registry.endpoints[0] must have a host and a port"},
		"endpoint on all interfaces":  {"registry: {endpoints: [\"grpc://0.0.0.0:1\"]}", "registry.endpoints[0] must have a host and a port"},
		"endpoint on no port":         {"registry: {endpoints: [\"grpc://h:0\"]}", "registry.endpoints[0] must have a host and a port"},
		"password without its user":   {"registry: {type: etcd, password: \"12345\"}", "registry.username is required with a password"},
		"registry without its type":   {"registry: {addrs: [\"h:2379\"]}", "registry.addrs is for a registry, but registry.type is none"},
		"endpoints without registry":  {"registry: {endpoints: [\"grpc://h:1\"]}", "registry.endpoints is for a registry"},
		"metadata without a registry": {"registry: {metadata: [a=b]}", "registry.metadata is for a registry"},
		"token without a registry":    {"registry: {token: \"12345\"}", "registry.token is for a registry"},
		"a Redis without its mode":    {"data: {redis: {addrs: [\"h:6379\"]}}", "data.redis.addrs is for a Redis, but data.redis.mode is"},
		"password, embedded store":    {"data: {redis: {password: \"12345\"}}", "data.redis.password is for a Redis"},
		"database, embedded store":    {"data: {redis: {db: 1}}", "data.redis.db is for a Redis"},
		"embedded store, registry": {
			"registry: {type: etcd}", "data.redis.allow_embedded must be true for mode embedded, whose links are in memory only, together " +
				"with registry.type etcd; or set data.redis.mode",
		},
		"embedded store, on all interfaces": {"server: {http: {addr: \"0.0.0.0:80\"}}", "together with server.http.addr 0.0.0.0:80"},
		"embedded store, without a host":    {"server: {grpc: {addr: \":80\"}}", "data.redis.allow_embedded must be true"},
		"embedded store, a host's name":     {"server: {admin: {addr: \"podlink:80\"}}", "data.redis.allow_embedded must be true"},
		"one port on two addresses": {
			"server: {http: {addr: \"0.0.0.0:9000\"}}", "server.http.addr must differ from server.grpc.addr: they are 0.0.0.0:9000 and",
		},
		"metadata without a value":   {"registry: {metadata: [zone]}", "registry.metadata[0] must be name=value"},
		"registry's key without TLS": {"registry: {tls: {cert_file: c, key_file: k}}", "registry.tls.enabled must be true"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := load(t, row.text, nil)
			require.ErrorContains(t, err, row.want)
			require.NotContains(t, err.Error(), "12345", "an error contains a token")
		})
	}
	_, err := load(t, "limits: {max_batch: 0}\nlog: {level: loud}", nil)
	require.ErrorContains(t, err, "limits.max_batch")
	require.ErrorContains(t, err, "log.level", "all contradictions in one error")
}

// TestEmbeddedStoreWhereItIsAskedFor: the store in memory needs no word on loopback, and one anywhere else.
func TestEmbeddedStoreWhereItIsAskedFor(t *testing.T) {
	for _, text := range []string{
		"server: {http: {addr: \"localhost:1\"}, grpc: {addr: \"[::1]:2\"}, admin: {addr: \"127.0.0.2:2\"}}",
		"server: {http: {addr: \":80\"}}\ndata: {redis: {allow_embedded: true}}\nauth: {allow_insecure: true}",
		"registry: {type: kubernetes}\ndata: {redis: {allow_embedded: true}}",
		"registry: {type: etcd}\nserver: {http: {addr: \":80\"}}\ndata: {redis: {mode: standalone}}\nauth: {allow_insecure: true}",
	} {
		_, err := load(t, text, nil)
		require.NoError(t, err, text)
	}
}
