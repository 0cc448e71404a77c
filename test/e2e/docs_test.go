package e2e

import (
	"bufio"
	"encoding/json"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v3"

	"podlink/client"
	"podlink/test/kit/proc"
)

// document reads a document of the repository.
func document(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root, path))
	require.NoError(t, err)
	return string(text)
}

// TestDocsShowTheExamplesAsTheyAre: each Go block of these pages is the file that the link before it names, or a part of one.
func TestDocsShowTheExamplesAsTheyAre(t *testing.T) {
	shown := regexp.MustCompile("(?s)\\]\\(\\.\\./(examples/[^)]*\\.go)\\):\n\n```go\n(.*?)```\n")
	for page, files := range map[string]int{"docs/client.md": 2, "docs/first-service.md": 3} {
		text := document(t, page)
		found := shown.FindAllStringSubmatch(text, -1)
		require.Len(t, found, files, page)
		for _, one := range found {
			require.Equal(t, document(t, one[1]), one[2], "%s shows %s", page, one[1])
		}
	}
	parts := blocks(document(t, "docs/client.md"))
	compiled := unindented(document(t, "examples/counter/pod/counter.go") + document(t, "client/example_test.go"))
	lines := 0
	for _, part := range parts {
		switch {
		case part.language != "go":
		case strings.HasPrefix(part.text, "package"):
			lines = strings.Count(part.text, "\n")
			require.LessOrEqual(t, lines, 30, part.text)
		default:
			require.Contains(t, compiled, unindented(part.text))
		}
	}
	require.NotZero(t, lines)
}

// TestFirstService runs every command of the page in one shell, and compares what they print with the page. What it replaces are the
// ports, which may be in use here, and the folder bin.
func TestFirstService(t *testing.T) {
	t.Parallel()
	folder := t.TempDir()
	ports := proc.FreePorts(t, 5)
	api, podlink := proc.Addr(ports[0]), proc.Addr(ports[1])
	pods := fmt.Sprintf("[]int{%d, %d, %d}[pod]", ports[2], ports[3], ports[4])
	here := strings.NewReplacer(
		"make build\n", "ln -s "+binary+" "+folder+"/podlink\n", // TestMain has run it.
		"127.0.0.1:8000", api, "127.0.0.1:9000", podlink, "9010+pod", pods, "bin/", folder+"/")

	shell := startShell(t,
		"GOFLAGS="+os.Getenv("GOFLAGS")+" -overlay="+overlay(t, folder, here, "examples/counter/pods/pods.go", "examples/counter/pod/main.go"),
		"PODLINK_SERVER_HTTP_ADDR="+api, "PODLINK_SERVER_GRPC_ADDR="+podlink, "PODLINK_SERVER_ADMIN_ADDR=127.0.0.1:0")
	t.Cleanup(func() {
		if logs, _ := filepath.Glob(folder + "/*.log"); t.Failed() {
			for _, log := range logs {
				text, _ := os.ReadFile(log)
				t.Logf("%s:\n%s", filepath.Base(log), text)
			}
		}
	})
	answered := 0
	for _, command := range blocks(document(t, "docs/first-service.md")) {
		if command.language != "sh" {
			continue
		}
		if strings.Contains(command.text, "printf") {
			awaitReports(t, api)
		}
		printed := shell.run(here.Replace(command.text))
		if command.answer != nil {
			answered++
			require.Equal(t, command.answer.text, printed, command.text)
		}
		if strings.Contains(command.text, "bin/counter-pod 2>") { // The reader of the page needs a second.
			awaitPods(t, api)
		}
	}
	require.Equal(t, 7, answered)
}

// overlay writes copies of files in which the addresses are replaced, for go build, and returns the path of its table.
func overlay(t *testing.T, folder string, here *strings.Replacer, files ...string) string {
	t.Helper()
	table := map[string]string{}
	for _, file := range files {
		original, err := filepath.Abs(filepath.Join(root, file))
		require.NoError(t, err)
		table[original] = filepath.Join(folder, strings.ReplaceAll(file, "/", "-"))
		require.NoError(t, os.WriteFile(table[original], []byte(here.Replace(document(t, file))), 0o600))
	}
	text, err := json.Marshal(map[string]any{"Replace": table})
	require.NoError(t, err)
	path := filepath.Join(folder, "overlay.json")
	require.NoError(t, os.WriteFile(path, text, 0o600))
	return path
}

// awaitPods waits until three pods take users.
func awaitPods(t *testing.T, api string) {
	t.Helper()
	await(t, api, func(counterPod) bool { return true })
}

// awaitReports waits until no pod reports soon. The page's users are spread as it says if no report comes between a user's link and the
// visit: that report doesn't count the user yet, and podlink forgets at it that it has given the pod one.
func awaitReports(t *testing.T, api string) {
	t.Helper()
	const interval = client.DefaultPodTTL / 3
	await(t, api, func(pod counterPod) bool { return time.Since(time.UnixMilli(pod.HeartbeatMS)) < interval/2+interval/20 })
}

// counterPod is what the tests read of a pod in podlink's answer.
type counterPod struct {
	Live        bool
	Routing     string
	HeartbeatMS int64 `json:",string"`
}

// await waits until three pods take users, and ready says yes to each.
func await(t *testing.T, api string, ready func(counterPod) bool) {
	t.Helper()
	require.Eventually(t, func() bool {
		reply, err := http.Get("http://" + api + "/v1/namespaces/dev/services/counter/pods")
		if err != nil {
			return false
		}
		defer reply.Body.Close()
		var known struct{ Pods []counterPod }
		found := 0
		_ = json.NewDecoder(reply.Body).Decode(&known)
		for _, pod := range known.Pods {
			if pod.Live && pod.Routing == "READY" && ready(pod) {
				found++
			}
		}
		return found == 3
	}, 20*time.Second, 50*time.Millisecond)
}

// shell is a bash in which commands run one after the other, as a reader of a page types them.
type shell struct {
	t      *testing.T
	input  io.Writer
	output *bufio.Reader
}

// startShell starts a bash at the root of the repository. What it has started ends with the test.
func startShell(t *testing.T, env ...string) *shell {
	t.Helper()
	bash := exec.Command("bash")
	bash.Dir, bash.Env = root, append(os.Environ(), env...)
	bash.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	input, err := bash.StdinPipe()
	require.NoError(t, err)
	output, err := bash.StdoutPipe()
	require.NoError(t, err)
	bash.Stderr = os.Stderr
	require.NoError(t, bash.Start())
	t.Cleanup(func() {
		_ = syscall.Kill(-bash.Process.Pid, syscall.SIGKILL)
		_ = bash.Wait()
	})
	return &shell{t, input, bufio.NewReader(output)}
}

// run runs a command, and returns what it has printed. The test fails if the command takes too long.
func (s *shell) run(command string) (printed string) {
	const end = "-- end of the command --\n"
	s.t.Helper()
	_, err := io.WriteString(s.input, command+"echo '"+strings.TrimSpace(end)+"'\n")
	require.NoError(s.t, err)
	done := make(chan error, 1)
	go func() {
		for {
			line, err := s.output.ReadString('\n')
			if err != nil || line == end {
				done <- err
				return
			}
			printed += line
		}
	}()
	select {
	case err := <-done:
		require.NoError(s.t, err, command)
	case <-time.After(2 * time.Minute):
		require.FailNow(s.t, "a command does not end", command)
	}
	return printed
}

// TestClientReferenceIsComplete: docs/client.md has each option with its default, each error, and the log lines as they are.
func TestClientReferenceIsComplete(t *testing.T) {
	page := document(t, "docs/client.md")
	fields, failures, texts := sourcesOfClient(t)
	for options, names := range fields {
		_, table, ok := strings.Cut(page, "### `"+options+"`\n")
		require.True(t, ok, options)
		table, _, _ = strings.Cut(table, "\n### ")
		var documented []string
		for _, row := range regexp.MustCompile("(?m)^\\| `(\\w+)` \\|").FindAllStringSubmatch(table, -1) {
			documented = append(documented, row[1])
		}
		require.ElementsMatch(t, names, documented, options)
	}
	for option, value := range map[string]time.Duration{
		"| `Timeout` | 3 s |": client.DefaultTimeout, "| `RetryTimeout` | 1 s |": client.DefaultRetryTimeout,
		"| `LinkTTL` | 1 min |": client.DefaultLinkTTL, "| `CacheTTL` | 10 s |": client.DefaultCacheTTL,
		"| `TTL` | 15 s |": client.DefaultPodTTL, "| `DrainTimeout` | 30 s |": client.DefaultDrainTimeout,
		"| `CacheTTL` | 5 s |": client.DefaultGuardCacheTTL,
	} {
		require.Contains(t, page, option)
		spelled := strings.NewReplacer(" s", "s", " min", "m", " ", "").Replace(regexp.MustCompile(`\d+ \w+`).FindString(option))
		documented, err := time.ParseDuration(spelled)
		require.NoError(t, err)
		require.Equal(t, value, documented, option)
	}
	require.Equal(t, 100_000, client.DefaultCacheSize)
	require.Equal(t, "running", client.DefaultState)
	for _, key := range []string{client.MetadataPodID, client.MetadataPodName, client.MetadataInstanceID} {
		require.Contains(t, page, "`"+key+"`")
	}

	_, table, _ := strings.Cut(page, "\n### Errors\n")
	table, _, _ = strings.Cut(table, "\n### ")
	for _, failure := range failures {
		require.Contains(t, table, "`"+failure+"`")
	}
	_, table, _ = strings.Cut(page, "\n### When something is wrong\n")
	table, _, _ = strings.Cut(table, "\n### ")
	for _, row := range regexp.MustCompile("(?m)^\\| `([^`]+)` \\|").FindAllStringSubmatch(table, -1) {
		logged := func(text string) bool { return strings.Contains(text, row[1]) }
		require.True(t, slices.ContainsFunc(texts, logged), "no line of the log has %q", row[1])
	}
}

// sourcesOfClient returns the fields of the client's options, the names of its errors, and the texts in its sources.
func sourcesOfClient(t *testing.T) (fields map[string][]string, failures, texts []string) {
	t.Helper()
	files, err := filepath.Glob(root + "/client/*.go")
	require.NoError(t, err)
	fields = map[string][]string{}
	for _, name := range files {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, 0)
		require.NoError(t, err)
		ast.Inspect(file, func(node ast.Node) bool {
			switch node := node.(type) {
			case *ast.TypeSpec:
				if options, ok := node.Type.(*ast.StructType); ok && node.Name.IsExported() && strings.HasSuffix(node.Name.Name, "Options") {
					for _, field := range options.Fields.List {
						for _, name := range slices.DeleteFunc(field.Names, func(name *ast.Ident) bool { return !name.IsExported() }) {
							fields[node.Name.Name] = append(fields[node.Name.Name], name.Name)
						}
					}
				}
			case *ast.ValueSpec:
				for _, name := range node.Names {
					if strings.HasPrefix(name.Name, "Err") {
						failures = append(failures, name.Name)
					}
				}
			case *ast.BasicLit:
				if text, err := strconv.Unquote(node.Value); err == nil && node.Kind == token.STRING {
					texts = append(texts, text)
				}
			}
			return true
		})
	}
	require.Len(t, fields, 3)
	require.NotEmpty(t, failures)
	return fields, failures, texts
}

// TestStatefulSetOutlastsTheDrain: the manifest of docs/client.md is YAML, gives the pod's names, and more time than a drain takes.
func TestStatefulSetOutlastsTheDrain(t *testing.T) {
	var manifest struct {
		Kind string
		Spec struct {
			Template struct {
				Spec struct {
					TerminationGracePeriodSeconds int `yaml:"terminationGracePeriodSeconds"`
					Containers                    []struct {
						Env []struct {
							Name      string
							ValueFrom struct {
								FieldRef struct {
									FieldPath string `yaml:"fieldPath"`
								} `yaml:"fieldRef"`
							} `yaml:"valueFrom"`
						}
					}
				}
			}
		}
	}
	for _, b := range blocks(document(t, "docs/client.md")) {
		if b.language == "yaml" {
			require.NoError(t, yaml.Unmarshal([]byte(b.text), &manifest))
		}
	}
	require.Equal(t, "StatefulSet", manifest.Kind)
	pod := manifest.Spec.Template.Spec
	require.Greater(t, time.Duration(pod.TerminationGracePeriodSeconds)*time.Second, client.DefaultDrainTimeout)
	given := map[string]string{}
	for _, env := range pod.Containers[0].Env {
		given[env.Name] = env.ValueFrom.FieldRef.FieldPath
	}
	require.Equal(t, map[string]string{"POD_NAME": "metadata.name", "POD_UID": "metadata.uid"}, given)
}

// TestGuaranteesNameTests: each test that docs/guarantees.md names exists.
func TestGuaranteesNameTests(t *testing.T) {
	list := exec.Command("git", "grep", "-hoE", `^func Test\w+\(`, "--", "*_test.go")
	list.Dir = root
	out, err := list.Output()
	require.NoError(t, err)
	for _, name := range regexp.MustCompile("`(Test\\w+)`").FindAllStringSubmatch(document(t, "docs/guarantees.md"), -1) {
		require.Contains(t, string(out), "func "+name[1]+"(")
	}
}

// TestLinksBetweenDocumentsLeadSomewhere: to a file of the repository, and to a heading of it.
func TestLinksBetweenDocumentsLeadSomewhere(t *testing.T) {
	pages, err := filepath.Glob(root + "/docs/*.md")
	require.NoError(t, err)
	decisions, err := filepath.Glob(root + "/docs/decisions/*.md")
	require.NoError(t, err)
	pages = append(append(pages, decisions...), root+"/README.md", root+"/SECURITY.md", root+"/examples/chat/README.md")
	for _, page := range pages {
		text, err := os.ReadFile(page)
		require.NoError(t, err)
		for _, link := range regexp.MustCompile(`\]\(([^)\s]*)\)`).FindAllStringSubmatch(string(text), -1) {
			if strings.Contains(link[1], "://") {
				continue
			}
			path, anchor, _ := strings.Cut(link[1], "#")
			target := page
			if path != "" {
				target = filepath.Join(filepath.Dir(page), path)
			}
			_, err := os.Stat(target)
			require.NoError(t, err, "%s: %s", page, link[1])
			if anchor != "" {
				require.Contains(t, anchors(t, target), anchor, "%s: %s", page, link[1])
			}
		}
	}
}

// anchors returns the names that the headings of a page have in links.
func anchors(t *testing.T, page string) (names []string) {
	t.Helper()
	text, err := os.ReadFile(page)
	require.NoError(t, err)
	for _, heading := range regexp.MustCompile(`(?m)^#+ (.*)$`).FindAllStringSubmatch(string(text), -1) {
		plain := regexp.MustCompile(`[^\p{L}\p{N}_ -]`).ReplaceAllString(strings.ToLower(heading[1]), "")
		names = append(names, strings.ReplaceAll(plain, " ", "-"))
	}
	return names
}
