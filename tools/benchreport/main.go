// Command benchreport generates docs/performance.md and its plots from the results of `make bench`.
//
// Usage: go -C tools/benchreport run . -in RESULTS.json -out DOCS
//
// Two things to know before changing it. The output is deterministic, so that a diff of the docs is a diff of the figures. And
// everything is rendered before anything is written, so that invalid results leave the docs unchanged.
//
// It is a separate module, so that podlink does not depend on the plotting library.
package main

import (
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

func main() {
	in := flag.String("in", "", "the JSON `file` with the results")
	out := flag.String("out", "", "the `folder` of the docs")
	flag.Parse()
	if *in == "" || *out == "" || flag.NArg() > 0 {
		flag.Usage()
		os.Exit(2)
	}
	if err := run(*in, *out); err != nil {
		fmt.Fprintf(os.Stderr, "benchreport: %v\n", err)
		os.Exit(1)
	}
}

// run writes performance.md and performance/*.svg in the folder docs, and removes obsolete plots.
func run(in, docs string) error {
	results, err := load(in)
	if err != nil {
		return err
	}
	notes, err := os.ReadFile(filepath.Join(docs, "performance-notes.md"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	files, err := render(results, string(notes))
	if err != nil {
		return fmt.Errorf("%s: %w", in, err)
	}

	if err := os.MkdirAll(filepath.Join(docs, plots), 0o755); err != nil {
		return err
	}
	for name, content := range files {
		if err := os.WriteFile(filepath.Join(docs, name), content, 0o644); err != nil {
			return err
		}
	}
	return removeObsolete(docs, files)
}

// removeObsolete removes plots that are not in files.
func removeObsolete(docs string, files map[string][]byte) error {
	found, err := fs.Glob(os.DirFS(docs), plots+"/*.svg")
	if err != nil {
		return err
	}
	for _, name := range found {
		if _, ok := files[name]; !ok {
			err = errors.Join(err, os.Remove(filepath.Join(docs, name)))
		}
	}
	return err
}
