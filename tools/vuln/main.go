// Command vuln fails if a package linked into podlink has a known vulnerability.
//
// It runs govulncheck with a pinned snapshot of the Go vulnerability database: it needs no network beyond the Go module proxy, and
// the result for a commit never changes. It checks packages, not called functions: that is stricter, and does not depend on the
// accuracy of a call graph.
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"

	"golang.org/x/vuln/scan"
)

// The pinned database is a Go module. Its data/osv has one file per vulnerability.
const (
	database    = "golang.org/x/vulndb@v0.0.0-20261105234957-e22db6528018"
	databaseSum = "h1:mfngRv0Yoh0VApsXKEN82CjD99kl7mtparN3bs3JnqI="
)

// exceptions are accepted vulnerabilities with the reason. An exception that no longer applies fails the check too.
var exceptions = map[string]string{
	"GO-2026-5471": "Kratos serves http.DefaultServeMux for unknown routes and wrong methods (CVE-2026-6993), and no version " +
		"fixes it. podlink sets both of Kratos' fallback handlers; TestHostileHTTP verifies it with a default mux that " +
		"answers everything.",
}

func main() {
	if err := run(context.Background(), os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "vuln:", err)
		os.Exit(1)
	}
}

// run checks the module in the working directory. args are additional flags and patterns for govulncheck.
func run(ctx context.Context, args []string, out io.Writer) error {
	dir, err := download(ctx)
	if err != nil {
		return err
	}
	var report, log bytes.Buffer
	args = append([]string{"-format", "json", "-scan", "package", "-db", "file://" + filepath.Join(dir, "data", "osv")}, args...)
	cmd := scan.Command(ctx, args...)
	cmd.Stdout, cmd.Stderr = &report, &log
	if err := cmd.Start(); err != nil {
		return err
	}
	if err := cmd.Wait(); err != nil {
		return fmt.Errorf("govulncheck: %w\n%s", err, &log)
	}
	found, err := parse(&report)
	if err != nil {
		return err
	}
	return evaluate(found, exceptions, out)
}

// download downloads the database and returns its folder.
func download(ctx context.Context) (string, error) {
	text, err := exec.CommandContext(ctx, "go", "mod", "download", "-json", database).Output()
	if err != nil {
		return "", fmt.Errorf("go mod download %s: %w\n%s", database, err, text)
	}
	var module struct{ Dir, Sum string }
	if err := json.Unmarshal(text, &module); err != nil {
		return "", err
	}
	if module.Sum != databaseSum {
		return "", fmt.Errorf("%s has the checksum %s instead of %s", database, module.Sum, databaseSum)
	}
	return module.Dir, nil
}

// vulnerability is a vulnerability in linked packages.
type vulnerability struct {
	summary  string
	packages map[string]string // path -> version with the fix; empty: none
}

// message is a message in govulncheck's output, with the fields used here.
type message struct {
	OSV *struct {
		ID      string `json:"id"`
		Summary string `json:"summary"`
	} `json:"osv"`
	Finding *struct {
		OSV          string `json:"osv"`
		FixedVersion string `json:"fixed_version"`
		Trace        []struct {
			Module  string `json:"module"`
			Package string `json:"package"`
		} `json:"trace"`
	} `json:"finding"`
}

// parse returns the vulnerabilities of linked packages, by id.
func parse(report io.Reader) (map[string]vulnerability, error) {
	summaries := make(map[string]string)
	found := make(map[string]vulnerability)
	for decoder := json.NewDecoder(report); ; {
		var m message
		err := decoder.Decode(&m)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("govulncheck's output: %w", err)
		}
		if m.OSV != nil {
			summaries[m.OSV.ID] = m.OSV.Summary
		}
		// A finding without a package is for a module whose vulnerable packages are not linked.
		if m.Finding == nil || len(m.Finding.Trace) == 0 || m.Finding.Trace[0].Package == "" {
			continue
		}
		v, known := found[m.Finding.OSV]
		if !known {
			v = vulnerability{packages: make(map[string]string)}
		}
		v.packages[m.Finding.Trace[0].Package] = m.Finding.FixedVersion
		found[m.Finding.OSV] = v
	}
	for id, v := range found {
		v.summary = summaries[id]
		found[id] = v
	}
	return found, nil
}

// evaluate prints every vulnerability. It returns an error if one has no exception, or an exception has no vulnerability.
func evaluate(found map[string]vulnerability, exceptions map[string]string, out io.Writer) error {
	var failures []error
	for _, id := range slices.Sorted(maps.Keys(found)) {
		reason, excepted := exceptions[id]
		verdict := "FAIL"
		if excepted {
			verdict = "excepted"
		} else {
			failures = append(failures, fmt.Errorf("%s: %s", id, found[id].summary))
		}
		fmt.Fprintf(out, "%s %s: %s\n", verdict, id, found[id].summary)
		for _, path := range slices.Sorted(maps.Keys(found[id].packages)) {
			fixed := found[id].packages[path]
			if fixed == "" {
				fixed = "no version"
			}
			fmt.Fprintf(out, "  %s, fixed in %s\n", path, fixed)
		}
		if excepted {
			fmt.Fprintf(out, "  %s\n", reason)
		}
	}
	for _, id := range slices.Sorted(maps.Keys(exceptions)) {
		if _, still := found[id]; !still {
			failures = append(failures, fmt.Errorf("%s is excepted, but no linked package has it: remove the exception", id))
		}
	}
	if len(failures) == 0 {
		fmt.Fprintf(out, "no vulnerable packages, except for %d exception(s); database %s\n", len(exceptions), database)
	}
	return errors.Join(failures...)
}
