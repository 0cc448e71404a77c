// Command benchreport makes docs/performance.md and its plots of the results of `make bench`.
//
// Usage: go -C tools/benchreport run . -in RESULTS.json -out DOCS
//
// Two things to know before changing it. The same results give the same bytes, so that a difference in the docs is one
// of the figures. And nothing is written before everything is rendered: a fault in the results leaves the docs whole.
//
// It is a module of its own, so that the plotting library is none of podlink's dependencies.
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
	in := flag.String("in", "", "the results, a JSON `file`")
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

// run writes performance.md and performance/*.svg below the folder docs, and removes the plots that it no longer names.
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
	return removeOthers(docs, files)
}

// removeOthers removes the plots that are not among the files.
func removeOthers(docs string, files map[string][]byte) error {
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
