package podlink

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestOverlay(t *testing.T) {
	for name, row := range map[string]struct {
		patches []Patch
		want    map[string]string // file -> its patched text
		failure string
	}{
		"one": {
			patches: []Patch{{File: "a.go", Old: "one", New: "1"}},
			want:    map[string]string{"a.go": "1 two, two"},
		},
		"two in one file": {
			patches: []Patch{{File: "a.go", Old: "one", New: "1"}, {File: "a.go", Old: "two, two", New: "2"}},
			want:    map[string]string{"a.go": "1 2"},
		},
		"two files": {
			patches: []Patch{{File: "a.go", Old: "one", New: "1"}, {File: "lua/b.lua", Old: "three", New: "3"}},
			want:    map[string]string{"a.go": "1 two, two", "lua/b.lua": "3"},
		},
		"an absent text": {
			patches: []Patch{{File: "a.go", Old: "three"}},
			failure: `"three" occurs 0 times in a.go`,
		},
		"an ambiguous text":      {patches: []Patch{{File: "a.go", Old: "two"}}, failure: `"two" occurs 2 times in a.go`},
		"an absent file":         {patches: []Patch{{File: "c.go", Old: "one"}}, failure: "c.go: no such file"},
		"a text already patched": {patches: []Patch{{"a.go", "one", ""}, {"a.go", "one", ""}}, failure: "occurs 0 times"},
		"the text of an earlier patch": {
			patches: []Patch{{"a.go", "one", "1"}, {"a.go", "1", "I"}},
			want:    map[string]string{"a.go": "I two, two"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			root, dir := t.TempDir(), t.TempDir()
			require.NoError(t, os.Mkdir(filepath.Join(root, "lua"), 0o700))
			require.NoError(t, os.WriteFile(filepath.Join(root, "a.go"), []byte("one two, two"), 0o600))
			require.NoError(t, os.WriteFile(filepath.Join(root, "lua", "b.lua"), []byte("three"), 0o600))
			file, err := overlay(root, dir, row.patches)
			if row.failure != "" {
				require.ErrorContains(t, err, row.failure)
				return
			}
			require.NoError(t, err)
			content, err := os.ReadFile(file)
			require.NoError(t, err)
			var read struct{ Replace map[string]string }
			require.NoError(t, json.Unmarshal(content, &read))
			require.Len(t, read.Replace, len(row.want))
			for original, want := range row.want {
				patched, err := os.ReadFile(read.Replace[filepath.Join(root, original)])
				require.NoError(t, err)
				require.Equal(t, want, string(patched))
			}
		})
	}
}

// recorder is a test that records its errors instead of failing.
type recorder struct {
	testing.TB
	errors []string
}

func (r *recorder) Error(args ...any) { r.errors = append(r.errors, fmt.Sprint(args...)) }

func TestCheckPatches(t *testing.T) {
	t.Chdir(t.TempDir())
	require.NoError(t, os.WriteFile("go.mod", []byte("module a // one two, two"), 0o600))
	applies, stale := Patch{File: "go.mod", Old: "one", New: "1"}, Patch{File: "go.mod", Old: "three"}
	for name, row := range map[string]struct {
		patches []Patch
		want    []string // all in one error
	}{
		"no patches":       {},
		"one that applies": {patches: []Patch{applies}},
		"known-bad": {
			patches: []Patch{stale, applies, {File: "go.mod", Old: "two"}, {File: "gone.go", Old: "one"}, applies},
			want: []string{
				`"three" occurs 0 times in go.mod, want once`, `"two" occurs 2 times in go.mod`,
				"gone.go: no such file", `"one" occurs 0 times in go.mod`,
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := &recorder{TB: t}
			CheckPatches(r, row.patches...)
			if len(row.want) == 0 {
				require.Empty(t, r.errors)
				return
			}
			require.Len(t, r.errors, 1)
			for _, want := range row.want {
				require.Contains(t, r.errors[0], want)
			}
		})
	}
}
