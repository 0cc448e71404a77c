//go:build bench

package bench

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestMedian(t *testing.T) {
	for _, row := range []struct {
		runs Runs
		want float64
	}{
		{nil, 0},
		{Runs{7}, 7},
		{Runs{3, 1}, 2},
		{Runs{9, 1, 2}, 2},
		{Runs{4, 1, 100, 2}, 3},
	} {
		require.InDelta(t, row.want, row.runs.Median(), 1e-9, "%v", row.runs)
	}
}

func TestMet(t *testing.T) {
	for _, row := range []struct {
		target Target
		met    bool
	}{
		{Target{AtLeast: true, Limit: 2, Runs: Runs{1, 2, 3}}, true},
		{Target{AtLeast: true, Limit: 2, Runs: Runs{1, 1.9, 3}}, false},
		{Target{Limit: 2, Runs: Runs{1, 2, 3}}, true},
		{Target{Limit: 2, Runs: Runs{1, 2.1, 3}}, false},
	} {
		require.Equal(t, row.met, row.target.Met(), "%+v", row.target)
	}
}

func TestFigure(t *testing.T) {
	for v, want := range map[float64]string{
		0: "0", 1: "1", 0.9: "0.9", 0.976: "0.976", 1.2345: "1.23", 12.345: "12.3", 100.4: "100", 123456.7: "123457", -1.5: "-1.5",
	} {
		require.Equal(t, want, figure(v))
	}
}

func TestWorst(t *testing.T) {
	table := Table{Columns: []string{"ratio", "else"}}
	for _, v := range []float64{1, 9, 1} {
		table.add("first", 0, v)
	}
	for _, v := range []float64{2, 3, 2} {
		table.add("second", 0, v)
	}
	table.add("not compared", 1, 10)
	require.Equal(t, "second", table.worst(0).Name)
}

func TestUnquote(t *testing.T) {
	args, err := unquote(`"evalsha" "abc" "1" "a \"b\"" "\x00\n\xe2\x82\xac" ""` + "\r\n")
	require.NoError(t, err)
	require.Equal(t, []any{"evalsha", "abc", "1", `a "b"`, "\x00\n€", ""}, args)
	_, err = unquote(`"open`)
	require.Error(t, err)
}

// TestPrint: figures are printed as medians, and missed targets are marked.
func TestPrint(t *testing.T) {
	var c collector
	chart := &Chart{Title: "Get", X: "callers", Y: "calls per second"}
	chart.add("podlink", 1, 10)
	chart.add("podlink", 1, 30)
	chart.add("podlink", 256, 5000)
	chart.add("the driver", 256, 400)
	c.charts(chart)
	c.tables(&Table{
		Title: "Memory", Columns: []string{"per link", "per uid"}, Rows: []Row{{Name: "one", Cells: []Runs{{141, 143, 142}, nil}}},
	})
	c.target(Target{Measure: "fast", AtLeast: true, Limit: .9, Runs: Runs{.95}})
	c.target(Target{Measure: "small", Limit: 145, Unit: "B", Runs: Runs{150}})
	var out strings.Builder
	c.print(&out)
	var lines [][]string
	for line := range strings.Lines(out.String()) {
		if fields := strings.Fields(line); len(fields) > 0 {
			lines = append(lines, fields)
		}
	}
	require.Equal(t, [][]string{
		strings.Fields("Get: calls per second, by callers"),
		strings.Fields("podlink the driver"),
		strings.Fields("1 20"),
		strings.Fields("256 5000 400"),
		strings.Fields("Memory"),
		strings.Fields("per link per uid"),
		strings.Fields("one 142"),
		strings.Fields("Targets limit median"),
		strings.Fields("fast >= 0.9 0.95 met"),
		strings.Fields("small <= 145 B 150 MISSED"),
	}, lines)
}

func TestWrite(t *testing.T) {
	machine, err := thisMachine()
	require.NoError(t, err)
	require.NotEmpty(t, machine.CPU)
	require.NotEmpty(t, machine.Kernel)
	require.NotEmpty(t, machine.Podlink)
	require.Regexp(t, `^\d+\.\d+\.\d+$`, machine.Redis)
	require.Greater(t, machine.Memory, int64(1<<28))

	want := Results{Machine: machine, Targets: []Target{{Measure: "fast", Limit: 1, Runs: Runs{1, 2}}}}
	file := filepath.Join(t.TempDir(), "results.json")
	require.NoError(t, want.write(file))
	text, err := os.ReadFile(file)
	require.NoError(t, err)
	var got Results
	require.NoError(t, json.Unmarshal(text, &got))
	require.Equal(t, want, got)
}
