package conf

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"
)

// TestUnknownVariables: a misspelled variable is an error that suggests the right one; those that Kubernetes sets for services
// are not podlink's.
func TestUnknownVariables(t *testing.T) {
	for name, nearest := range map[string]string{
		"PODLINK_REDIS_MODE":                 "PODLINK_DATA_REDIS_MODE",
		"PODLINK_DATA_REDIS_ADDR":            "PODLINK_DATA_REDIS_ADDRS",
		"PODLINK_DATA_REDIS_PASWORD":         "PODLINK_DATA_REDIS_PASSWORD",
		"PODLINK_DATA_REDIS_PASSWORDFILE":    "PODLINK_DATA_REDIS_PASSWORD_FILE",
		"PODLINK_SERVER_HTTP_ADDR_FILE":      "PODLINK_SERVER_HTTP_ADDR",
		"PODLINK_DATA_REDIS_TLS_CA_FILE_":    "PODLINK_DATA_REDIS_TLS_CA_FILE",
		"PODLINK_server_http_addr":           "",
		"PODLINK_PORT_8000_TCP_HOST":         "",
		"PODLINK_PORT_HTTP_TCP":              "",
		"PODLINK_SERVICE_HOST_NAME":          "",
		"PODLINK_":                           "",
		"PODLINK_REGISTRY_TYP":               "PODLINK_REGISTRY_TYPE",
		"PODLINK_DATA_REDIS_SENTINELS_ADDRS": "",
	} {
		_, err := Load("", environment(map[string]string{name: "hunter2"}))
		require.ErrorContains(t, err, name+" is not a known variable; the nearest is PODLINK_"+strings.TrimPrefix(nearest, EnvPrefix))
		require.NotContains(t, err.Error(), "hunter2")
	}
	services := make(map[string]string)
	for _, service := range []string{"PODLINK_", "PODLINK_ADMIN_", "PODLINK_V2_REDIS_"} {
		for _, suffix := range []string{
			"SERVICE_HOST", "SERVICE_PORT", "SERVICE_PORT_HTTP", "SERVICE_PORT_GRPC_WEB", "PORT",
			"PORT_8000_TCP", "PORT_8000_TCP_PROTO", "PORT_8000_TCP_PORT", "PORT_8000_TCP_ADDR", "PORT_53_UDP_ADDR", "PORT_9_SCTP",
		} {
			services[service+suffix] = "tcp://10.0.0.1:8000"
		}
	}
	services["PODLINKS_MODE"], services["XPODLINK_MODE"] = "other", "programs"
	b, err := Load("", environment(services))
	require.NoError(t, err)
	require.True(t, proto.Equal(Default(), b))
}

// TestSecretsFromFiles: every secret can come from a file, and no error has its content.
func TestSecretsFromFiles(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
		return path
	}
	secret := write("secret", "hunter2\n")
	link := filepath.Join(dir, "link") // As in a mounted Secret.
	require.NoError(t, os.Symlink(secret, link))
	b, err := Load("", environment(map[string]string{
		"PODLINK_DATA_REDIS_MODE": "sentinel", "PODLINK_DATA_REDIS_PASSWORD_FILE": secret,
		"PODLINK_DATA_REDIS_SENTINEL_PASSWORD_FILE": link,
		"PODLINK_TRACE_ENDPOINT":                    "localhost:4317",
		"PODLINK_TRACE_HEADERS_FILE":                write("headers", "a=b c,d=e\r\n"),
		"PODLINK_REGISTRY_TYPE":                     "consul", "PODLINK_REGISTRY_USERNAME": "u",
		"PODLINK_REGISTRY_PASSWORD_FILE": write("lines", " two\nlines \n"), "PODLINK_REGISTRY_TOKEN_FILE": secret,
	}))
	require.NoError(t, err)
	require.Equal(t, "hunter2", b.Data.Redis.Password)
	require.Equal(t, "hunter2", b.Data.Redis.SentinelPassword)
	require.Equal(t, []string{"a=b c", "d=e"}, b.Trace.Headers)
	require.Equal(t, " two\nlines ", b.Registry.Password, "only the newline at the end is removed")
	require.Equal(t, "hunter2", b.Registry.Token)

	pipe := filepath.Join(dir, "pipe")
	require.NoError(t, syscall.Mkfifo(pipe, 0o600))
	for name, row := range map[string]struct{ file, want string }{
		"absent":    {filepath.Join(dir, "absent"), "no such file"},
		"folder":    {dir, "is not a regular file"},
		"pipe":      {pipe, "is not a regular file"},
		"device":    {"/dev/zero", "is not a regular file"},
		"empty":     {write("empty", "\n"), "is empty"},
		"no path":   {"", "must be the path of a file"},
		"large":     {write("large", strings.Repeat("hunter2", 10_000)), "is larger than 65536 bytes"},
		"not UTF-8": {write("binary", "hunter2\xff"), "must be valid UTF-8"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Load("", environment(map[string]string{
				"PODLINK_DATA_REDIS_MODE": "standalone", "PODLINK_DATA_REDIS_PASSWORD_FILE": row.file,
			}))
			require.ErrorContains(t, err, "PODLINK_DATA_REDIS_PASSWORD_FILE")
			require.ErrorContains(t, err, row.want)
			require.NotContains(t, err.Error(), "hunter2")
		})
	}
	_, err = Load("", environment(map[string]string{
		"PODLINK_DATA_REDIS_PASSWORD": "hunter2", "PODLINK_DATA_REDIS_PASSWORD_FILE": secret,
	}))
	require.EqualError(t, err,
		"configuration: PODLINK_DATA_REDIS_PASSWORD_FILE must not be set together with PODLINK_DATA_REDIS_PASSWORD")
}

// TestUnreadableFiles: what is not one YAML document of a regular file is refused without waiting, and is not quoted.
func TestUnreadableFiles(t *testing.T) {
	for name, row := range map[string]struct{ text, want string }{
		"empty":                  {"", "the file sets no key; write {}"},
		"comments only":          {"# log:\n", "the file sets no key"},
		"null":                   {"null\n", "the file sets no key"},
		"second document":        {"log: {level: warn}\n---\nlog: {level: info}\n", "second YAML document"},
		"empty second document":  {"log: {level: warn}\n---\n", "second YAML document"},
		"broken second document": {"log: {level: warn}\n---\n'hunter2", "yaml"},
		"JSON twice":             {"{}{}", "yaml"},
		"anchor":                 {"data: {redis: {password: *hunter2}}", "yaml"},
		"bare text":              {"hunter2", "cannot unmarshal"},
		"text as a key":          {"the password is hunter2: 1", "a key is not a known one"},
		"text as an inner key":   {"data: {redis: {the password is hunter2: 1}}", "a key under data.redis is not a known one"},
		"quotes in a value":      {"`hunter2`", "yaml"},
		"placeholder":            {`data: {redis: {password: "${REDIS_PASSWORD}"}}`, "data.redis.password has a placeholder"},
		"placeholder's default":  {`data: {redis: {password: "${A.B:hunter2}"}}`, "set PODLINK_DATA_REDIS_PASSWORD instead"},
		"placeholder in a list":  {`data: {redis: {addrs: ["${A}:6379"]}}`, "data.redis.addrs[0] has a placeholder"},
		"placeholder's variable": {`data: {redis: {addrs: ["${A}:6379"]}}`, "set PODLINK_DATA_REDIS_ADDRS instead"},
		"placeholder, a number":  {`limits: {max_batch: "${MAX}"}`, "set PODLINK_LIMITS_MAX_BATCH instead"},
		"credentials in a URL":   {`data: {redis: {mode: standalone, addrs: ["redis://u:hunter2@h:6379"]}}`, `is "redis://***@h:6379"`},
		"credentials, endpoint":  {`registry: {type: etcd, endpoints: ["grpc://u:hunter2@h"]}`, "registry.endpoints[0]"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := load(t, row.text, nil)
			require.ErrorContains(t, err, "config")
			require.ErrorContains(t, err, row.want)
			require.NotContains(t, err.Error(), "hunter2")
		})
	}
	_, err := load(t, "{}", nil)
	require.NoError(t, err, "the defaults are meant")
	_, err = load(t, "---\nlog: {level: warn}\n", nil)
	require.NoError(t, err, "a document may begin with ---")

	dir := t.TempDir()
	require.NoError(t, syscall.Mkfifo(filepath.Join(dir, "pipe.yaml"), 0o600))
	for _, path := range []string{dir, filepath.Join(dir, "pipe.yaml")} {
		_, err = Load(path, nil)
		require.ErrorContains(t, err, "pipe.yaml is not a regular file")
	}
	_, err = load(t, "#"+strings.Repeat(" ", maxFileBytes), nil)
	require.ErrorContains(t, err, "is larger than")
}

// TestUnusableTLSFiles: TLS files are checked with the configuration, not by their first use.
func TestUnusableTLSFiles(t *testing.T) {
	dir := t.TempDir()
	text, pipe := filepath.Join(dir, "text"), filepath.Join(dir, "pipe")
	require.NoError(t, os.WriteFile(text, []byte("hunter2"), 0o600))
	require.NoError(t, syscall.Mkfifo(pipe, 0o600))
	env := func(more ...string) []string {
		return append([]string{
			"PODLINK_DATA_REDIS_MODE=standalone", "PODLINK_TRACE_ENDPOINT=h:1", "PODLINK_REGISTRY_TYPE=etcd",
		}, more...)
	}
	for _, row := range []struct{ section, path string }{
		{"PODLINK_DATA_REDIS_TLS_", "data.redis.tls"}, {"PODLINK_TRACE_TLS_", "trace.tls"}, {"PODLINK_REGISTRY_TLS_", "registry.tls"},
	} {
		for file, want := range map[string]string{
			text: ": no PEM certificate in the file", pipe: "is not a regular file", dir + "/absent": "no such file",
		} {
			_, err := Load("", env(row.section+"ENABLED=true", row.section+"CA_FILE="+file))
			require.Regexp(t, "^configuration: "+row.path+".ca_file: ", err)
			require.ErrorContains(t, err, want)
			_, err = Load("", env(row.section+"ENABLED=true", row.section+"CERT_FILE="+file, row.section+"KEY_FILE="+file))
			require.Regexp(t, "^configuration: "+row.path+".cert_file", err)
			require.NotContains(t, err.Error(), "hunter2")
		}
	}
}

// TestYAML: the printed configuration is one that Load reads, and has no secret.
func TestYAML(t *testing.T) {
	text, err := Default().YAML()
	require.NoError(t, err)
	b, err := load(t, text, nil)
	require.NoError(t, err)
	require.True(t, proto.Equal(Default(), b), text)

	b = Default()
	b.Data.Redis.Mode, b.Data.Redis.Password, b.Data.Redis.SentinelPassword = ModeSentinel, "hunter2", "hunter2"
	b.Data.Redis.Username, b.Data.Redis.Addrs = "123", []string{"redis://u:hunter2@h:6379"}
	b.Trace.Headers = []string{"authorization=hunter2 x", "x"}
	b.Trace.SamplingRatio = 1e-7
	b.Registry.Password, b.Registry.Token = "hunter2", "12345"
	text, err = b.YAML()
	require.NoError(t, err)
	require.NotContains(t, text, "hunter2")
	require.NotContains(t, text, "12345")
	for _, want := range []string{
		`    password: "***"`, `sentinel_password: "***"`, `token: "***"`, "- authorization=***", "redis://***@h:6379", `username: "123"`,
		"sampling_ratio: 1e-07", "timeout: " + time.Second.String(), "endpoints: []",
	} {
		require.Contains(t, text, want)
	}
}

// TestEverySecretIsMarked: a key that sounds like a secret is one.
func TestEverySecretIsMarked(t *testing.T) {
	for name, v := range variables(Default().ProtoReflect(), EnvPrefix) {
		for _, word := range []string{"PASSWORD", "TOKEN", "SECRET", "HEADERS", "KEY"} {
			isPath := strings.HasSuffix(string(v.field.Name()), "_file")
			if strings.Contains(name, word) && !isPath {
				require.True(t, isSecret(v.field), name)
			}
		}
	}
}
