//go:build bench

package bench

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"time"
)

// thisMachine describes the machine that the measurement ran on.
func thisMachine() (Machine, error) {
	m := Machine{
		Cores: runtime.NumCPU(), Go: runtime.Version(), Date: time.Now().Format(time.DateOnly), Command: "make bench", Runs: runs,
	}
	if quick {
		m.Command = "make bench-quick"
	}
	for _, read := range []struct {
		into *string
		from func() (string, error)
	}{
		{&m.CPU, func() (string, error) { return property("/proc/cpuinfo", "model name") }},
		{&m.Kernel, func() (string, error) {
			text, err := os.ReadFile("/proc/sys/kernel/osrelease")
			return strings.TrimSpace(string(text)), err
		}},
		{&m.Redis, redisVersion},
		{&m.Podlink, func() (string, error) { return output("git", "describe", "--always", "--dirty") }},
	} {
		text, err := read.from()
		if err != nil {
			return Machine{}, fmt.Errorf("describe the machine: %w", err)
		}
		*read.into = text
	}
	memory, err := property("/proc/meminfo", "MemTotal")
	if err != nil {
		return Machine{}, err
	}
	kibibytes, err := strconv.ParseInt(strings.TrimSuffix(memory, " kB"), 10, 64)
	m.Memory = kibibytes << 10
	return m, err
}

// property returns the value of the first line "name: value" of a file.
func property(file, name string) (string, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(string(text)) {
		if key, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(key) == name {
			return strings.TrimSpace(value), nil
		}
	}
	return "", fmt.Errorf("%s has no %s", file, name)
}

// redisVersion returns the 7.0.15 of "Redis server v=7.0.15 sha=…".
func redisVersion() (string, error) {
	text, err := output("redis-server", "--version")
	_, rest, _ := strings.Cut(text, "v=")
	version, _, _ := strings.Cut(rest, " ")
	return version, err
}

func output(command string, args ...string) (string, error) {
	text, err := exec.Command(command, args...).Output()
	if err != nil {
		return "", fmt.Errorf("%s: %w", command, err)
	}
	return strings.TrimSpace(string(text)), nil
}
