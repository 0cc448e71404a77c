package podlink

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// Patch replaces a text of a source file for one build: a Go file, or an embedded one. The file itself is not changed.
type Patch struct {
	File string // relative to the root of the repository
	Old  string // must occur in File exactly once
	New  string
}

// CheckPatches fails the test for each patch that does not apply to the sources any more. It builds nothing, so a suite
// that takes minutes can check its patches in a fast test without a build tag.
func CheckPatches(tb testing.TB, patches ...Patch) {
	tb.Helper()
	root, err := Root()
	if err != nil {
		tb.Fatal(err)
	}
	if _, err := patched(root, patches); err != nil {
		tb.Error(err)
	}
}

// patched returns the text of each patched file by its path. Patches of one file apply in order, each to the result of the
// one before.
func patched(root string, patches []Patch) (map[string]string, error) {
	texts := make(map[string]string)
	var failures []error
	for _, patch := range patches {
		path := filepath.Join(root, filepath.FromSlash(patch.File))
		if _, ok := texts[path]; !ok {
			text, err := os.ReadFile(path)
			if err != nil {
				failures = append(failures, fmt.Errorf("patch: %w", err))
				continue
			}
			texts[path] = string(text)
		}
		if n := strings.Count(texts[path], patch.Old); n != 1 {
			failures = append(failures, fmt.Errorf("patch: %q occurs %d times in %s, want once", patch.Old, n, patch.File))
			continue
		}
		texts[path] = strings.Replace(texts[path], patch.Old, patch.New, 1)
	}
	return texts, errors.Join(failures...)
}

// overlay writes the patched files to dir, and the file that makes go build read them instead of the originals.
func overlay(root, dir string, patches []Patch) (file string, err error) {
	texts, err := patched(root, patches)
	if err != nil {
		return "", err
	}
	replace := make(map[string]string)
	for original, text := range texts {
		replacement := filepath.Join(dir, "patched-"+strconv.Itoa(len(replace))+filepath.Ext(original))
		if err := os.WriteFile(replacement, []byte(text), 0o600); err != nil {
			return "", err
		}
		replace[original] = replacement
	}
	content, err := json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		return "", err
	}
	file = filepath.Join(dir, "overlay.json")
	return file, os.WriteFile(file, content, 0o600)
}
