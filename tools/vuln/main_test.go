package main

import (
	"bytes"
	"os"
	"strings"
	"testing"
)

// report is abridged output of govulncheck: GO-1 is in a linked package, GO-2 only in a module.
const report = `
{"config": {"scanner_name": "govulncheck"}}
{"osv": {"id": "GO-1", "summary": "a hole"}}
{"osv": {"id": "GO-2", "summary": "a hole elsewhere"}}
{"finding": {"osv": "GO-1", "fixed_version": "v1.2.4", "trace": [{"module": "m", "version": "v1.2.3"}]}}
{"finding": {"osv": "GO-1", "fixed_version": "v1.2.4", "trace": [{"module": "m", "version": "v1.2.3", "package": "m/p"}]}}
{"finding": {"osv": "GO-2", "trace": [{"module": "n", "version": "v1.0.0"}]}}
`

func TestEvaluate(t *testing.T) {
	tests := []struct {
		name       string
		report     string
		exceptions map[string]string
		fails      string // part of the error; empty: passes
		prints     string
	}{
		{"nothing found", `{"osv": {"id": "GO-1"}}`, nil, "", "no vulnerable packages"},
		{"a linked package", report, nil, "GO-1: a hole", "FAIL GO-1: a hole\n  m/p, fixed in v1.2.4"},
		{"an exception", report, map[string]string{"GO-1": "we never call it"}, "", "we never call it"},
		{"an exception that no longer applies", report, map[string]string{"GO-1": "", "GO-3": ""}, "GO-3 is excepted", ""},
		{"an exception of a module only", report, map[string]string{"GO-1": "", "GO-2": ""}, "GO-2 is excepted", ""},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			found, err := parse(strings.NewReader(test.report))
			if err != nil {
				t.Fatal(err)
			}
			var out bytes.Buffer
			err = evaluate(found, test.exceptions, &out)
			if (err == nil) != (test.fails == "") || err != nil && !strings.Contains(err.Error(), test.fails) {
				t.Errorf("error %v, want %q", err, test.fails)
			}
			if !strings.Contains(out.String(), test.prints) {
				t.Errorf("printed %q, want %q in it", &out, test.prints)
			}
		})
	}
}

func TestParseRejectsNonJSON(t *testing.T) {
	if _, err := parse(strings.NewReader("govulncheck: no go.mod")); err == nil {
		t.Error("no error")
	}
}

// TestRunFindsAVulnerableModule runs the whole check on a module that links a package with a known vulnerability.
func TestRunFindsAVulnerableModule(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) {
		if err := os.WriteFile(dir+"/"+name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	// Kratos' HTTP transport is vulnerable, and podlink's only exception.
	root, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	sums, err := os.ReadFile(root + "/../../go.sum")
	if err != nil {
		t.Fatal(err)
	}
	mod, err := os.ReadFile(root + "/../../go.mod")
	if err != nil {
		t.Fatal(err)
	}
	write("go.sum", string(sums))
	write("go.mod", string(mod))
	write("main.go", "package main\n\nimport _ \"github.com/go-kratos/kratos/v2/transport/http\"\n\nfunc main() {}\n")
	saved := exceptions
	t.Cleanup(func() { exceptions = saved })
	var out bytes.Buffer
	if err := run(t.Context(), []string{"-C", dir, "./..."}, &out); err != nil {
		t.Errorf("with the exception: %v", err)
	}
	exceptions = nil
	if err := run(t.Context(), []string{"-C", dir, "./..."}, &out); err == nil || !strings.Contains(err.Error(), "GO-2026-5471") {
		t.Errorf("error %v, want GO-2026-5471", err)
	}
}
