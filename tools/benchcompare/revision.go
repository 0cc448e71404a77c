package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// turnsFile is the test file that makes test/bench a worker.
const turnsFile = "test/bench/turns_test.go"

// revision is a source tree and its binaries.
type revision struct {
	dir     string
	podlink string // path of the podlink binary
	worker  string // path of the test binary of test/bench
	conf    string // path of podlink's configuration
	token   string // of the calls; empty: none
}

// export writes a revision's files to a folder. A git worktree would leave traces in the repository if the run is killed.
func export(ctx context.Context, root, rev, dir string) error {
	archive, err := output(ctx, root, "git", "archive", "--format=tar", rev)
	if err != nil {
		return err
	}
	extract := exec.CommandContext(ctx, "tar", "-x", "-C", dir)
	extract.Stdin = bytes.NewReader(archive)
	if text, err := extract.CombinedOutput(); err != nil {
		return fmt.Errorf("tar: %w\n%s", err, text)
	}
	return nil
}

// build builds a tree's podlink and worker into a folder. Builds are reproducible: the tree's path does not matter.
func build(ctx context.Context, root, dir, into string) (revision, error) {
	r := revision{
		dir: dir, podlink: filepath.Join(into, "podlink"), worker: filepath.Join(into, "worker"), conf: "configs/config.yaml",
	}
	env := append(os.Environ(), "GOFLAGS="+strings.TrimSpace(os.Getenv("GOFLAGS")+" -buildvcs=false"))
	command := func(name string, args ...string) error {
		cmd := exec.CommandContext(ctx, name, args...)
		cmd.Dir, cmd.Env = dir, env
		if text, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("%s in %s: %w\n%s", cmd, dir, err, text)
		}
		return nil
	}
	if err := command("make", "build", "BINARY="+r.podlink, "VERSION=bench-compare"); err != nil {
		return revision{}, err
	}
	args := []string{"test", "-c", "-trimpath", "-tags", "bench", "-o", r.worker}
	if _, err := os.Stat(filepath.Join(dir, turnsFile)); errors.Is(err, os.ErrNotExist) {
		overlay, err := overlayTurns(ctx, root, dir, into)
		if err != nil {
			return revision{}, err
		}
		args = append(args, "-overlay", overlay)
	}
	if err := command("go", append(args, "./test/bench")...); err != nil {
		return revision{}, err
	}
	return r, nil
}

// overlayTurns writes a build overlay that adds turnsFile to a tree from before it existed. It takes the oldest version of the
// file, which fits old trees best.
func overlayTurns(ctx context.Context, root, dir, into string) (overlay string, err error) {
	text, err := output(ctx, root, "git", "log", "--diff-filter=A", "--format=%H", "--", turnsFile)
	if err != nil {
		return "", err
	}
	source := filepath.Join(root, turnsFile) // The file is not committed yet.
	if commits := strings.Fields(string(text)); len(commits) > 0 {
		oldest, err := output(ctx, root, "git", "show", commits[len(commits)-1]+":"+turnsFile)
		if err != nil {
			return "", err
		}
		source = filepath.Join(into, filepath.Base(turnsFile))
		if err := os.WriteFile(source, oldest, 0o600); err != nil {
			return "", err
		}
	}
	replace, err := json.Marshal(map[string]any{"Replace": map[string]string{filepath.Join(dir, turnsFile): source}})
	if err != nil {
		return "", err
	}
	overlay = filepath.Join(into, "overlay.json")
	return overlay, os.WriteFile(overlay, replace, 0o600)
}

// output runs a command and returns its standard output.
func output(ctx context.Context, dir, name string, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = dir
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	text, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("%s: %w\n%s", cmd, err, &stderr)
	}
	return text, nil
}
