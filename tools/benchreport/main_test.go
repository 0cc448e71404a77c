package main

import (
	"bytes"
	"encoding/xml"
	"errors"
	"flag"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

var update = flag.Bool("update", false, "update testdata/performance.md")

const (
	sample = "testdata/results.json"
	golden = "testdata/performance.md"
)

// write writes a file in a new folder and returns its path.
func write(t *testing.T, name, text string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), name)
	require.NoError(t, os.WriteFile(file, []byte(text), 0o600))
	return file
}

func read(t *testing.T, path ...string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(path...))
	require.NoError(t, err)
	return string(text)
}

// edited returns the path of a copy of the sample with a replacement.
func edited(t *testing.T, old, changed string) string {
	t.Helper()
	text := read(t, sample)
	require.Contains(t, text, old)
	return write(t, "results.json", strings.Replace(text, old, changed, 1))
}

func TestPerformancePage(t *testing.T) {
	docs := t.TempDir()
	require.NoError(t, run(sample, docs))
	page := read(t, docs, "performance.md")
	if *update {
		require.NoError(t, os.WriteFile(golden, []byte(page), 0o600))
	}
	require.Equal(t, read(t, golden), page)
}

func TestPlots(t *testing.T) {
	docs := t.TempDir()
	require.NoError(t, run(sample, docs))
	results, err := load(sample)
	require.NoError(t, err)
	for _, chart := range results.Charts {
		svg := read(t, docs, chart.File())
		require.Less(t, len(svg), 40<<10, chart.ID)
		words := texts(t, svg)
		require.Contains(t, words, chart.X, chart.ID)
		require.Contains(t, words, chart.Y, chart.ID)
		for _, series := range chart.Series {
			require.Contains(t, words, series.Name, chart.ID)
		}
		for _, word := range []string{"NaN", "Inf"} {
			require.NotContains(t, svg, word, chart.ID)
		}
	}
}

// texts returns the text elements of an SVG, which must be well-formed XML.
func texts(t *testing.T, svg string) []string {
	t.Helper()
	var found []string
	text := false
	for decoder := xml.NewDecoder(strings.NewReader(svg)); ; {
		token, err := decoder.Token()
		if errors.Is(err, io.EOF) {
			return found
		}
		require.NoError(t, err)
		switch token := token.(type) {
		case xml.StartElement:
			text = token.Name.Local == "text"
		case xml.EndElement:
			text = false
		case xml.CharData:
			if text {
				found = append(found, string(token))
			}
		}
	}
}

func TestOutputIsDeterministic(t *testing.T) {
	results, err := load(sample)
	require.NoError(t, err)
	first, err := render(results, "notes")
	require.NoError(t, err)
	for range 5 {
		again, err := render(results, "notes")
		require.NoError(t, err)
		require.Len(t, again, len(first))
		for name, content := range first {
			require.True(t, bytes.Equal(content, again[name]), name)
		}
	}
}

func TestNotesEndThePage(t *testing.T) {
	docs := t.TempDir()
	notes := "## What was tried\n\n{{.Machine}} stays as it is, | too.\n"
	require.NoError(t, os.WriteFile(filepath.Join(docs, "performance-notes.md"), []byte(notes), 0o600))
	require.NoError(t, run(sample, docs))
	require.Equal(t, read(t, golden)+"\n"+notes, read(t, docs, "performance.md"))
}

func TestObsoletePlotsAreRemoved(t *testing.T) {
	docs := t.TempDir()
	folder := filepath.Join(docs, plots)
	require.NoError(t, os.Mkdir(folder, 0o700))
	for _, name := range []string{"data-obsolete.svg", "photo.png"} {
		require.NoError(t, os.WriteFile(filepath.Join(folder, name), nil, 0o600))
	}
	require.NoError(t, run(sample, docs))
	require.NoFileExists(t, filepath.Join(folder, "data-obsolete.svg"))
	require.FileExists(t, filepath.Join(folder, "photo.png"), "not a plot")
	require.FileExists(t, filepath.Join(folder, "data-get.svg"))
}

func TestNoResults(t *testing.T) {
	missing := filepath.Join(t.TempDir(), "results.json")
	err := run(missing, t.TempDir())
	require.EqualError(t, err,
		"no results to report; run `make bench` first: open "+missing+": no such file or directory")
}

func TestResultsThatCannotBeShown(t *testing.T) {
	for name, row := range map[string]struct{ old, changed, message string }{
		"unknown field":     {`"note": "Closed`, `"extra": 1, "note": "Closed`, `json: unknown field "extra"`},
		"wrong type":        {`"cores": 2`, `"cores": "two"`, "cannot unmarshal string"},
		"not JSON":          {`{`, `{{`, "invalid character '{'"},
		"more than one":     {`{`, `{} {`, "trailing data after the results"},
		"id without a name": {`"data-get"`, `"data"`, `the id "data" is not SECTION-NAME`},
		"id in the tree":    {`"data-get"`, `"data-../../x"`, `the id "data-../../x" is not SECTION-NAME`},
		"id taken twice":    {`"data-get"`, `"data-commands"`, `duplicate id "data-commands"`},
		"unknown section":   {`"data-get"`, `"other-get"`, "performance.md.tmpl has no section for other-…: add one"},
		"zero on a log axis": {
			`[11800, 12100, 11900]`, `[11800, 0, 11900]`, "chart data-get, podlink at 1: values on a logarithmic axis must be above 0",
		},
		"no runs":      {`[11800, 12100, 11900]`, `[]`, "chart data-get, podlink at 1: no runs"},
		"falling x":    {`{"x": 1,`, `{"x": 99,`, "chart data-get, podlink at 16: points must be in order of x"},
		"missing cell": {`[[6.5, 6.4, 6.6], [91234, 92000, 90000]]`, `[[6.5]]`, "SetLinkedPod: 1 cells for 2 columns"},
		"no points":    {`[{"x": 10, "runs": [98765.4]}]`, `[]`, "chart growth-pods has no points"},
	} {
		t.Run(name, func(t *testing.T) {
			docs := t.TempDir()
			file := edited(t, row.old, row.changed)
			err := run(file, docs)
			require.ErrorContains(t, err, row.message)
			require.ErrorContains(t, err, file)
			left, err := os.ReadDir(docs)
			require.NoError(t, err)
			require.Empty(t, left, "nothing is written")
		})
	}
}
