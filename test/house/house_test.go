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
var exempt = regexp.MustCompile(`\.pb\.go$|_grpc\.pb\.go$|/wire_gen\.go$|^LICENSE$|^third_party/|^test/house/|` +
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
		if slices.Contains(extensions, kindOf(name)) {
			files = append(files, name)
		}
	}
	require.Greater(t, len(files), 10)
	return root, files
}

// kindOf returns the extension of a file, or the name of one without.
func kindOf(name string) string {
	if extension := filepath.Ext(name); extension != "" {
		return extension
	}
	return filepath.Base(name)
}

func read(t *testing.T, root, name string) []byte {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root, name))
	require.NoError(t, err)
	return text
}

// TestGlossary finds the words that have a better name.
func TestGlossary(t *testing.T) {
	root, files := sources(t, ".go", ".lua", ".proto", ".md", ".yaml", ".yml", ".sh", ".json", ".txt", "Makefile",
		"Dockerfile", "run")
	for _, name := range files {
		for _, finding := range glossary(name, read(t, root, name)) {
			t.Error(finding)
		}
	}
}

// lineBreakPattern matches a line break in prose, with the marks of a comment at the end of a line and at the start of the next.
var lineBreakPattern = regexp.MustCompile(`[ \t]*\n[ \t]*(?:(?://|#|--|\*|>)[ \t]+)?`)

// glossary returns a line for each banned phrase of a file. Of Go it reads the comments and the texts, of other files all. A
// phrase may go on in the next line of a comment.
func glossary(name string, text []byte) []string {
	var findings []string
	check := func(line int, prose string) {
		joined, lineAt := join(prose)
		for _, rule := range banned {
			for _, at := range rule.phrase.FindAllStringIndex(joined, -1) {
				findings = append(findings, fmt.Sprintf("%s:%d: %q: write %s",
					name, line+lineAt(at[0]), joined[at[0]:at[1]], rule.write))
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
	comment, begin, end := "", 0, 0 // Consecutive lines of a comment.
	for {
		position, kind, literal := s.Scan()
		line := file.Line(position)
		if kind != token.COMMENT || line != end+1 {
			check(begin, comment)
			comment, begin = "", line
		}
		switch kind {
		case token.EOF:
			return findings
		case token.COMMENT:
			if comment != "" {
				comment += "\n"
			}
			comment += literal
			end = line + strings.Count(literal, "\n")
		case token.STRING, token.IDENT:
			check(line, literal)
		default:
		}
	}
}

// join returns a text with a space for each line break, and a function that returns the line of an offset, from 0.
func join(text string) (joined string, lineAt func(offset int) int) {
	var b strings.Builder
	var starts []int // of the lines after the first
	last := 0
	for _, at := range lineBreakPattern.FindAllStringIndex(text, -1) {
		b.WriteString(text[last:at[0]] + " ")
		starts, last = append(starts, b.Len()), at[1]
	}
	b.WriteString(text[last:])
	return b.String(), func(offset int) int {
		line, _ := slices.BinarySearch(starts, offset+1)
		return line
	}
}

// TestGlossaryFindsWhatIsBanned in sources made for it: one line of testdata/findings.txt for each finding.
func TestGlossaryFindsWhatIsBanned(t *testing.T) {
	want, err := os.ReadFile("testdata/findings.txt")
	require.NoError(t, err)
	var found []string
	for _, name := range []string{"sample.go.txt", "sample.md", "sample.sh", "Makefile"} {
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
		if strings.HasSuffix(name, "_test.go") || strings.Contains(name, "/assembled/") { // The parts are checked.
			continue
		}
		if n := bytes.Count(read(t, root, name), []byte("\n")); n > maxLines {
			t.Errorf("%s has %d lines, more than %d: which part deserves its own file?", name, n, maxLines)
		}
	}
}
