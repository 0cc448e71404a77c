package main

import (
	"bytes"
	_ "embed"
	"fmt"
	"maps"
	"slices"
	"strings"
	"text/template"
)

// plots is the folder of the plots, next to performance.md.
const plots = "performance"

//go:embed performance.md.tmpl
var page string

// Report is the data of the template.
type Report struct {
	*Results
	Notes    string // docs/performance-notes.md
	sections map[string]*Section
}

// Section has the charts and tables of a section of the page.
type Section struct {
	Charts []Chart
	Tables []Table
}

// render returns the files of the report by their paths in the docs folder.
func render(results *Results, notes string) (map[string][]byte, error) {
	report := &Report{Results: results, Notes: notes, sections: map[string]*Section{}}
	files := map[string][]byte{}
	for _, chart := range results.Charts {
		section := report.section(chart.ID)
		section.Charts = append(section.Charts, chart)
		svg, err := chart.svg()
		if err != nil {
			return nil, err
		}
		files[chart.File()] = svg
	}
	for _, table := range results.Tables {
		section := report.section(table.ID)
		section.Tables = append(section.Tables, table)
	}

	text, err := template.New("performance.md").Funcs(template.FuncMap{"gib": gib}).Parse(page)
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	if err := text.Execute(&out, report); err != nil {
		return nil, err
	}
	if left := slices.Sorted(maps.Keys(report.sections)); len(left) > 0 {
		return nil, fmt.Errorf("performance.md.tmpl has no section for %s-…: add one", strings.Join(left, "-…, "))
	}
	files["performance.md"] = out.Bytes()
	return files, nil
}

func (r *Report) section(id string) *Section {
	name, _, _ := strings.Cut(id, "-")
	if r.sections[name] == nil {
		r.sections[name] = &Section{}
	}
	return r.sections[name]
}

// Section removes a section and returns it to the template; nil when it has no results. Sections that remain after rendering are
// missing in the template.
func (r *Report) Section(name string) *Section {
	section := r.sections[name]
	delete(r.sections, name)
	return section
}

// TargetTable returns the table of targets.
func (r *Report) TargetTable() string {
	rows := [][]string{{"measure", "target", "median", "all runs", ""}}
	for _, target := range r.Targets {
		rows = append(rows, target.row())
	}
	return markdown("lrrrl", rows)
}

func (t Target) row() []string {
	unit := ""
	if t.Unit != "" {
		unit = " " + t.Unit
	}
	bound := "≤ "
	if t.AtLeast {
		bound = "≥ "
	}
	row := []string{t.Measure, bound + plain(t.Limit, 4) + unit}
	if len(t.Runs) == 0 {
		return append(row, "–", "–", "**not measured**")
	}
	verdict := "**missed**"
	if t.Met() {
		verdict = "met"
	}
	runs := make([]string, 0, len(t.Runs))
	for _, run := range t.Runs {
		runs = append(runs, numberBeside(run, t.Limit))
	}
	return append(row, numberBeside(t.Runs.Median(), t.Limit)+unit, strings.Join(runs, ", "), verdict)
}

// Reached returns the number of targets that were measured and met.
func (r *Report) Reached() int {
	reached := 0
	for _, target := range r.Targets {
		if len(target.Runs) > 0 && target.Met() {
			reached++
		}
	}
	return reached
}

// File returns the path of the chart's plot relative to performance.md.
func (c Chart) File() string { return plots + "/" + c.ID + ".svg" }

// xs returns all values of x in the chart, sorted.
func (c Chart) xs() []float64 {
	var xs []float64
	for _, series := range c.Series {
		for _, point := range series.Points {
			xs = append(xs, point.X)
		}
	}
	slices.Sort(xs)
	return slices.Compact(xs)
}

// Medians returns the chart as a table: a row per x, a column per series.
func (c Chart) Medians() string {
	rows := [][]string{{c.X}}
	for _, x := range c.xs() {
		rows = append(rows, []string{number(x)})
	}
	for _, series := range c.Series {
		rows[0] = append(rows[0], series.Name)
		for i, x := range c.xs() {
			var runs Runs
			if at := slices.IndexFunc(series.Points, func(p Point) bool { return p.X == x }); at >= 0 {
				runs = series.Points[at].Runs
			}
			rows[i+1] = append(rows[i+1], runs.cell())
		}
	}
	return markdown("r", rows)
}

// Medians returns the table of medians.
func (t Table) Medians() string {
	rows := [][]string{append([]string{""}, t.Columns...)}
	for _, row := range t.Rows {
		cells := []string{row.Name}
		for _, runs := range row.Cells {
			cells = append(cells, runs.cell())
		}
		rows = append(rows, cells)
	}
	return markdown("l", rows)
}

func (r Runs) cell() string {
	if len(r) == 0 {
		return "–"
	}
	return number(r.Median())
}

// markdown formats a table. The first row is the header. align has a letter per column: l for left, r for right; missing letters
// count as r.
func markdown(align string, rows [][]string) string {
	var out strings.Builder
	line := func(cells []string) {
		out.WriteString("| " + strings.Join(cells, " | ") + " |\n")
	}
	for i, row := range rows {
		cells := make([]string, 0, len(row))
		for _, cell := range row {
			cells = append(cells, strings.ReplaceAll(cell, "|", `\|`))
		}
		line(cells)
		if i > 0 {
			continue
		}
		for column := range cells {
			cells[column] = "---:"
			if column < len(align) && align[column] == 'l' {
				cells[column] = "---"
			}
		}
		line(cells)
	}
	return out.String()
}

func gib(bytes int64) string { return number(float64(bytes)/(1<<30)) + " GiB" }
