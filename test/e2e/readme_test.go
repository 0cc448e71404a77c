package e2e

import (
	"encoding/json"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	redistest "podlink/test/kit/redis"
)

// block is a fenced block of a document. The block right after a command is its answer.
type block struct {
	language, text string
	answer         *block // nil if prose follows
}

func readme(t *testing.T) []block {
	t.Helper()
	return blocks(document(t, "README.md"))
}

// blocks returns the fenced blocks of a text.
func blocks(text string) []block {
	fences := regexp.MustCompile("(?ms)^```(\\w+)\n(.*?)^```$")
	var found []block
	for at := text; ; {
		fence := fences.FindStringSubmatchIndex(at)
		if fence == nil {
			return found
		}
		next := block{language: at[fence[2]:fence[3]], text: at[fence[4]:fence[5]]}
		if len(found) > 0 && strings.TrimSpace(at[:fence[0]]) == "" {
			found[len(found)-1].answer = &next
		}
		found = append(found, next)
		at = at[fence[1]:]
	}
}

// TestReadmeCommandsGiveItsAnswers runs the README's commands that have an answer there, in order, against a new podlink on each
// store.
func TestReadmeCommandsGiveItsAnswers(t *testing.T) {
	for name, env := range map[string]func(t *testing.T) []string{
		"embedded": func(*testing.T) []string { return nil },
		"standalone": func(t *testing.T) []string {
			return onRedis(redistest.Start(t))
		},
	} {
		t.Run(name, func(t *testing.T) {
			p := start(t, env(t)...)
			here := strings.NewReplacer("127.0.0.1:8000", p.HTTP, "127.0.0.1:9000", p.GRPC)
			answered := 0
			for _, command := range readme(t) {
				answer := command.answer
				if command.language != "sh" || answer == nil {
					continue
				}
				answered++
				cmd := exec.Command("bash", "-c", here.Replace(command.text))
				cmd.Dir = root
				out, err := cmd.Output()
				require.NoError(t, err, command.text)
				if answer.language == "text" {
					require.Equal(t, answer.text, string(out), command.text)
					continue
				}
				require.JSONEq(t, withoutTime(t, answer.text), withoutTime(t, string(out)), command.text)
			}
			require.Equal(t, 4, answered, "three curls and a Go program")
		})
	}
}

// withoutTime replaces epochs by a constant: they are times, and differ in each run.
func withoutTime(t *testing.T, text string) string {
	t.Helper()
	require.True(t, json.Valid([]byte(text)), text)
	return regexp.MustCompile(`"epoch": ?"\d{16}"`).ReplaceAllString(text, `"epoch":"a time in µs"`)
}

// TestReadmeShowsTheExamplesAsTheyAre: the README's Go code is part of compiled examples, and short.
func TestReadmeShowsTheExamplesAsTheyAre(t *testing.T) {
	var shown []string
	for _, b := range readme(t) {
		if b.language == "go" {
			shown = append(shown, b.text)
		}
	}
	for i, row := range []struct {
		file  string
		lines int // at most
	}{
		{"examples/quickstart/main.go", 20},
		{"client/example_test.go", 10}, // the routing
		{"client/example_test.go", 15}, // the agent
	} {
		example, err := os.ReadFile(root + "/" + row.file)
		require.NoError(t, err)
		require.Greater(t, len(shown), i)
		require.Contains(t, unindented(string(example)), unindented(shown[i]))
		require.LessOrEqual(t, strings.Count(shown[i], "\n"), row.lines, shown[i])
	}
	require.Len(t, shown, 3)
}

func unindented(text string) string {
	return regexp.MustCompile(`(?m)^\t+`).ReplaceAllString(text, "")
}

// TestReadmeMakeTargetsExist: the make targets in the README exist and run the expected commands. make run starts the binary that
// these tests use, and make test runs them.
func TestReadmeMakeTargetsExist(t *testing.T) {
	targets := map[string]string{
		"run":             "bin/podlink -conf configs/config.yaml",
		"demo":            "bin/chat demo",
		"test":            "go test -race",
		"lint":            "golangci-lint run",
		"cover":           "coverage.out",
		"check-generated": "git diff --exit-code",
		"help":            "awk",
	}
	var commands strings.Builder
	for _, b := range readme(t) {
		if b.language == "sh" {
			commands.WriteString(b.text)
		}
	}
	require.Contains(t, commands.String(), "make run")
	require.Contains(t, commands.String(), "make test")
	for target, recipe := range targets {
		cmd := exec.Command("make", "--dry-run", target)
		cmd.Dir = root
		cmd.Env = append(os.Environ(), "MAKEFLAGS=", "MAKELEVEL=")
		out, err := cmd.CombinedOutput()
		require.NoError(t, err, "%s: %s", target, out)
		require.Contains(t, string(out), recipe, target)
	}
}
