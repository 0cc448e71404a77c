package podlink

import (
	"encoding/json"
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
		"a text that is not there": {
			patches: []Patch{{File: "a.go", Old: "three"}},
			failure: `"three" stands 0 times in a.go`,
		},
		"a text that stands twice": {patches: []Patch{{File: "a.go", Old: "two"}}, failure: `"two" stands 2 times in a.go`},
		"a file that is not there": {patches: []Patch{{File: "c.go", Old: "one"}}, failure: "c.go: no such file"},
		"a text that was patched":  {patches: []Patch{{"a.go", "one", ""}, {"a.go", "one", ""}}, failure: "stands 0 times"},
		"a text that a patch gives": {
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
