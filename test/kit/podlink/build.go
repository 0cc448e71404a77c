package podlink

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"go.uber.org/goleak"
)

// Version is the version of a binary of Build.
const Version = "v1.2.3-test"

// Build builds podlink in dir with `make build`, as users do, with the patches applied to its sources, and returns the
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

// BinaryVariable is the environment variable with the path of the podlink that Main uses, instead of building one.
const BinaryVariable = "PODLINK_TEST_BINARY"

// Main is the body of a TestMain: it builds podlink for all tests of the package, sets binary to its path, and returns the
// exit code of run, or 1 when the tests passed but leaked goroutines.
func Main(binary *string, run func() int) int {
	*binary = os.Getenv(BinaryVariable)
	_ = os.Unsetenv(BinaryVariable) // A podlink would refuse to start: it does not know the variable.
	if *binary == "" {
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
	}
	code := run()
	if err := goleak.Find(); err != nil && code == 0 {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return code
}

// Root returns the root of the repository: the nearest folder with a go.mod, from the working directory up.
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
