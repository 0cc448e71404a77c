package podlink

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"

	"go.uber.org/goleak"
)

// Version is what a binary of Build says that it is.
const Version = "v1.2.3-test"

// Patch changes a source file for one build: a Go file, or one that is embedded. The file itself stays as it is.
type Patch struct {
	File string // as seen from the top of the repository
	Old  string // must stand in File, once
	New  string
}

// Build builds podlink in dir by the target that users call, with the patches applied to its sources, and returns the
// binary's path.
func Build(dir string, patches ...Patch) (binary string, err error) {
	root, err := Root()
	if err != nil {
		return "", err
	}
	binary = filepath.Join(dir, "podlink")
	build := exec.Command("make", "build", "BINARY="+binary, "VERSION="+Version)
	build.Dir = root
	build.Env = os.Environ()
	if len(patches) > 0 {
		file, err := overlay(root, dir, patches)
		if err != nil {
			return "", err
		}
		build.Env = append(build.Env, "GOFLAGS="+strings.TrimSpace(os.Getenv("GOFLAGS")+" -overlay="+file))
	}
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("make build: %w\n%s", err, out)
	}
	return binary, nil
}

// Main builds podlink for all tests of a package, sets binary to its path, and returns the exit code of run, or 1 when the
// tests have passed but left goroutines behind; it is what a TestMain exits with.
func Main(binary *string, run func() int) int {
	dir, err := os.MkdirTemp("", "podlink-test")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	if *binary, err = Build(dir); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	code := run()
	if err := goleak.Find(); err != nil && code == 0 {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return code
}

// overlay writes the patched files to dir, and the file that makes go build read them instead of the originals.
func overlay(root, dir string, patches []Patch) (file string, err error) {
	texts := make(map[string]string) // original -> its patched text
	for _, patch := range patches {
		original := filepath.Join(root, filepath.FromSlash(patch.File))
		if _, ok := texts[original]; !ok {
			text, err := os.ReadFile(original)
			if err != nil {
				return "", fmt.Errorf("patch: %w", err)
			}
			texts[original] = string(text)
		}
		if n := strings.Count(texts[original], patch.Old); n != 1 {
			return "", fmt.Errorf("patch: %q stands %d times in %s instead of once", patch.Old, n, patch.File)
		}
		texts[original] = strings.Replace(texts[original], patch.Old, patch.New, 1)
	}
	replace := make(map[string]string)
	for original, text := range texts {
		patched := filepath.Join(dir, "patched-"+strconv.Itoa(len(replace))+filepath.Ext(original))
		if err := os.WriteFile(patched, []byte(text), 0o600); err != nil {
			return "", err
		}
		replace[original] = patched
	}
	content, err := json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		return "", err
	}
	file = filepath.Join(dir, "overlay.json")
	return file, os.WriteFile(file, content, 0o600)
}

// Root returns the top of the repository: the folder above the test's own that has the go.mod.
func Root() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir, nil
		}
		if dir == filepath.Dir(dir) {
			return "", errors.New("no go.mod above the working directory")
		}
		dir = filepath.Dir(dir)
	}
}
