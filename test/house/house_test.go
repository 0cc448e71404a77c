// Package house holds the sources to the rules that no linter knows: the words of the glossary, and the length of files.
package house

import (
	"bytes"
	_ "embed"
	"fmt"
	"go/scanner"
	"go/token"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// banned are words and phrases that readers stumble over, each with what to write instead. They hold in comments, in the
// texts of Go (log lines, errors, names of tests), in its names, and in documents.
var banned = parseGlossary()

//go:embed glossary.txt
var glossaryText string

type rule struct {
	phrase *regexp.Regexp
	write  string
}

// parseGlossary reads a rule from each line of glossary.txt: a regular expression for whole words, a tab, and the
// replacement.
func parseGlossary() []rule {
	var rules []rule
	for line := range strings.Lines(glossaryText) {
		pattern, write, _ := strings.Cut(strings.TrimSpace(line), "\t")
		rules = append(rules, rule{regexp.MustCompile(`(?i)\b(` + pattern + `)\b`), write})
	}
	return rules
}

// exempt are the sources that the rules leave out.
var exempt = regexp.MustCompile(`\.pb\.go$|_grpc\.pb\.go$|/wire_gen\.go$|^client/.*\.go$|^LICENSE$|^third_party/|^test/house/|` +
	`^docs/performance\.md$|^tools/benchreport/testdata/`)

// sources returns the files of the repository with one of the extensions, as paths from its root.
func sources(t *testing.T, extensions ...string) (root string, files []string) {
	t.Helper()
	root, err := filepath.Abs("../..")
	require.NoError(t, err)
	list := exec.Command("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard")
	list.Dir = root
	out, err := list.Output()
	require.NoError(t, err, "the list of files comes from git")
	for name := range strings.SplitSeq(strings.TrimRight(string(out), "\x00"), "\x00") {
		if _, err := os.Stat(filepath.Join(root, name)); err != nil || exempt.MatchString(name) {
			continue // Removed, but not committed yet.
		}
		if slices.Contains(extensions, filepath.Ext(name)) {
			files = append(files, name)
		}
	}
	require.Greater(t, len(files), 10)
	return root, files
}

func read(t *testing.T, root, name string) []byte {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root, name))
	require.NoError(t, err)
	return text
}

// TestGlossary finds the words that have a better name.
func TestGlossary(t *testing.T) {
	root, files := sources(t, ".go", ".lua", ".proto", ".md", ".yaml", ".yml", ".sh")
	for _, name := range files {
		for _, finding := range glossary(name, read(t, root, name)) {
			t.Error(finding)
		}
	}
}

// glossary returns a line for each banned phrase of a file. Of Go it reads the comments and the texts, of other files all.
func glossary(name string, text []byte) []string {
	var findings []string
	check := func(line int, prose string) {
		for _, rule := range banned {
			for _, at := range rule.phrase.FindAllStringIndex(prose, -1) {
				findings = append(findings, fmt.Sprintf("%s:%d: %q: write %s",
					name, line+strings.Count(prose[:at[0]], "\n"), prose[at[0]:at[1]], rule.write))
			}
		}
	}
	if filepath.Ext(name) != ".go" {
		check(1, string(text))
		return findings
	}
	files := token.NewFileSet()
	file := files.AddFile(name, -1, len(text))
	var s scanner.Scanner
	s.Init(file, text, nil, scanner.ScanComments)
	for {
		position, kind, literal := s.Scan()
		switch kind {
		case token.EOF:
			return findings
		case token.COMMENT, token.STRING, token.IDENT:
			check(file.Line(position), literal)
		default:
		}
	}
}

// TestGlossaryFindsWhatIsBanned in sources made for it: one line of testdata/findings.txt for each finding.
func TestGlossaryFindsWhatIsBanned(t *testing.T) {
	want, err := os.ReadFile("testdata/findings.txt")
	require.NoError(t, err)
	var found []string
	for _, name := range []string{"sample.go.txt", "sample.md"} {
		text, err := os.ReadFile(filepath.Join("testdata", name))
		require.NoError(t, err)
		found = append(found, glossary(strings.TrimSuffix(name, ".txt"), text)...)
	}
	require.Equal(t, strings.TrimSpace(string(want)), strings.Join(found, "\n"))
}

// maxLines is how long a production file may be before it has more than one idea.
const maxLines = 400

// TestFileLength: a file that has grown too long has a part that deserves its own room.
func TestFileLength(t *testing.T) {
	root, files := sources(t, ".go", ".lua")
	for _, name := range files {
		if strings.HasSuffix(name, "_test.go") || strings.Contains(name, "/lua/assembled/") { // Made of several files.
			continue
		}
		if n := bytes.Count(read(t, root, name), []byte("\n")); n > maxLines {
			t.Errorf("%s has %d lines, more than %d: which part deserves its own file?", name, n, maxLines)
		}
	}
}
