package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v3"

	v1 "podlink/api/podlink/v1"
	"podlink/client"
	"podlink/test/kit/proc"
)

// TestSecurityPage runs every command of docs/security.md in one shell, and compares what they print with the page. What it replaces are
// the ports, which may be in use here, and the folder bin.
func TestSecurityPage(t *testing.T) {
	t.Parallel()
	folder := t.TempDir()
	ports := proc.FreePorts(t, 3)
	here := strings.NewReplacer(
		"make build\n", "ln -s "+binary+" "+folder+"/podlink\n", // TestMain has run it.
		"make certs-dev\n", "make -s certs-dev DIR="+folder+"/certs\n",
		"127.0.0.1:8000", proc.Addr(ports[0]), "127.0.0.1:8001", proc.Addr(ports[2]), "bin/", folder+"/")
	shell := startShell(t, "PODLINK_SERVER_HTTP_ADDR="+proc.Addr(ports[0]), "PODLINK_SERVER_GRPC_ADDR="+proc.Addr(ports[1]),
		"PODLINK_SERVER_ADMIN_ADDR="+proc.Addr(ports[2]))
	t.Cleanup(func() {
		if logs, _ := filepath.Glob(folder + "/walk/*.log"); t.Failed() {
			for _, log := range logs {
				text, _ := os.ReadFile(log)
				t.Logf("%s:\n%s", filepath.Base(log), text)
			}
		}
	})
	answered := 0
	for _, command := range blocks(document(t, "docs/security.md")) {
		if command.language != "sh" {
			continue
		}
		if _, err := exec.LookPath("python3"); err != nil && strings.Contains(command.text, "python3 ") {
			answered++ // podlink itself needs none.
			continue
		}
		text := here.Replace(command.text)
		if command.answer != nil && command.answer.language == "json" {
			text += "echo\n" // curl ends no line.
		}
		printed := shell.run(text)
		switch answer := command.answer; {
		case answer == nil:
		case answer.language == "json":
			answered++
			require.JSONEq(t, withoutTime(t, answer.text), withoutTime(t, printed), command.text)
		default:
			answered++
			require.Equal(t, answer.text, printed, command.text)
		}
	}
	require.Equal(t, 10, answered)
	_ = shell.run("kill $podlink; wait $podlink\n")
}

// securityYAML returns the YAML blocks of docs/security.md: the policy, the pods, podlink's configuration, the network policy.
func securityYAML(t *testing.T) (policy, pods, config, network string) {
	t.Helper()
	var found []string
	for _, b := range blocks(document(t, "docs/security.md")) {
		if b.language == "yaml" {
			found = append(found, b.text)
		}
	}
	require.Len(t, found, 4)
	return found[0], found[1], found[2], found[3]
}

// TestSecurityPageForKubernetes: podlink accepts the page's configuration and policy, and the names in them are those in the manifests.
func TestSecurityPageForKubernetes(t *testing.T) {
	policy, pods, config, network := securityYAML(t)
	folder := t.TempDir()
	out, err := exec.Command("make", "-s", "-C", root, "certs-dev", "DIR="+folder).CombinedOutput()
	require.NoError(t, err, "%s", out)
	write := func(name, text string) string {
		path := filepath.Join(folder, name)
		require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
		return path
	}
	file := write("podlink.yaml", strings.NewReplacer(
		"/run/podlink/tls/tls.crt", folder+"/server.crt", "/run/podlink/tls/tls.key", folder+"/server.key",
		"/run/podlink/policy/policy.yaml", write("policy.yaml", policy),
		"/var/run/secrets/kubernetes.io/serviceaccount/token", write("token", "a.token"),
		"/var/run/secrets/kubernetes.io/serviceaccount/", folder+"/",
	).Replace(config))
	out, err = exec.Command(binary, "-conf", file, "-check").CombinedOutput()
	require.NoError(t, err, "%s", out)

	var issuer struct {
		Auth struct {
			Issuers []struct {
				Name      string
				Audiences []string
			}
		}
	}
	require.NoError(t, yaml.Unmarshal([]byte(config), &issuer))
	var rules struct {
		Rules []struct {
			Who     []string
			Role    string
			PodName string `yaml:"pod_name"`
		}
	}
	require.NoError(t, yaml.Unmarshal([]byte(policy), &rules))
	require.Equal(t, "pod", rules.Rules[1].Role)
	set := parseStatefulSet(t, pods)
	template := set.Spec.Template.Spec
	require.Equal(t, "jwt:"+issuer.Auth.Issuers[0].Name+":system:serviceaccount:"+set.Metadata.Namespace+":"+template.ServiceAccountName,
		rules.Rules[1].Who[0])
	require.Equal(t, set.Metadata.Name+"-{ordinal}", rules.Rules[1].PodName)
	token := template.Volumes[0].Projected.Sources[0].ServiceAccountToken
	require.Equal(t, issuer.Auth.Issuers[0].Audiences, []string{token.Audience})
	require.Equal(t, client.DefaultTokenFile, template.Containers[0].VolumeMounts[0].MountPath+"/"+token.Path)
	require.Contains(t, network, "podSelector: {matchLabels: {podlink: caller}}")
	require.Equal(t, "caller", set.Spec.Template.Metadata.Labels["podlink"])
}

// statefulSet has what the tests look at.
type statefulSet struct {
	Kind     string
	Metadata struct{ Name, Namespace string }
	Spec     struct {
		Template struct {
			Metadata struct{ Labels map[string]string }
			Spec     struct {
				ServiceAccountName string `yaml:"serviceAccountName"`
				Containers         []struct {
					VolumeMounts []struct {
						MountPath string `yaml:"mountPath"`
					} `yaml:"volumeMounts"`
				}
				Volumes []struct {
					Projected struct {
						Sources []struct {
							ServiceAccountToken struct{ Audience, Path string } `yaml:"serviceAccountToken"`
						}
					}
				}
			}
		}
	}
}

func parseStatefulSet(t *testing.T, manifests string) statefulSet {
	t.Helper()
	decoder := yaml.NewDecoder(strings.NewReader(manifests))
	for {
		var set statefulSet
		require.NoError(t, decoder.Decode(&set))
		if set.Kind == "StatefulSet" {
			return set
		}
	}
}

// TestSecurityPageHasEveryCall: the table of rights has each rpc in the row of the least right that it needs.
func TestSecurityPageHasEveryCall(t *testing.T) {
	rows := make(map[string]string)
	for _, row := range regexp.MustCompile("(?m)^\\| `(\\w+)` \\| (.*) \\|$").FindAllStringSubmatch(document(t, "docs/security.md"), -1) {
		if _, taken := rows[row[1]]; !taken { // The table of rights comes before that of roles.
			rows[row[1]] = row[2]
		}
	}
	for _, method := range v1.Methods() {
		right := strings.ToLower(v1.RightOf(v1.Operation(method)).String())
		require.Regexp(t, `\b`+string(method.Name())+`\b`, rows[right], "%s needs at least %s", method.Name(), right)
	}
}
