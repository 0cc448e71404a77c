package conf

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// TestFleetBounds: a value out of range is refused with the path of its key, and those at both ends are taken.
func TestFleetBounds(t *testing.T) {
	for name, row := range map[string]struct{ text, want string }{
		"a feed without a past":      {"feed_max_age: 0s", "fleet.feed_max_age must be from 1m0s to 24h0m0s, is 0s"},
		"a feed of two days":         {"feed_max_age: 48h", "fleet.feed_max_age must be from 1m0s to 24h0m0s, is 48h0m0s"},
		"a census that never ends":   {"census_rate: 0", "fleet.census_rate must be from 100 to 1000000, is 0"},
		"a census without a pace":    {"census_rate: 1000001", "fleet.census_rate must be from 100 to 1000000"},
		"a sweep without a pause":    {"sweep_every: 5m", "fleet.sweep_every must be from 1h0m0s to 720h0m0s, is 5m0s"},
		"a sweep that is never done": {"sweep_every: 721h", "fleet.sweep_every must be from 1h0m0s"},
		"jobs that never end":        {"job_rate: 0", "fleet.job_rate must be from 1 to 1000000, is 0"},
		"jobs without a pace":        {"job_rate: 1000001", "fleet.job_rate must be from 1 to 1000000"},
		"an index that is text":      {`index: "false"`, "fleet.index must be of type bool"},
		"the least":                  {"feed_max_age: 1m, census_rate: 100, sweep_every: 1h", ""},
		"the most":                   {"feed_max_age: 24h, census_rate: 1000000, sweep_every: 720h", ""},
		"off, with the other keys":   {"index: false, feed_max_age: 5m, census_rate: 1000, sweep_every: 12h", ""},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := load(t, "fleet: {"+row.text+"}", nil)
			if row.want == "" {
				require.NoError(t, err)
				return
			}
			require.ErrorContains(t, err, row.want)
		})
	}
}

// TestIndexOffByAVariable: the index is switched off by one variable, and -check says so.
func TestIndexOffByAVariable(t *testing.T) {
	b, err := load(t, "{}", map[string]string{"PODLINK_FLEET_INDEX": "false"})
	require.NoError(t, err)
	require.False(t, b.Fleet.Index)
	require.Equal(t, 10*time.Minute, b.Fleet.FeedMaxAge.AsDuration())
	text, err := b.YAML()
	require.NoError(t, err)
	require.Contains(t, text, "fleet:\n  index: false\n  feed_max_age: 10m0s\n  census_rate: 20000\n  sweep_every: 24h0m0s\n"+
		"  job_rate: 2000\n")
}
