package biztest

import (
	"testing"

	"github.com/stretchr/testify/require"

	"podlink/internal/biz"
)

// TestAdvance: each step of the rule by hand. The simulation shows what the rule is good for.
func TestAdvance(t *testing.T) {
	const now = 1_000_000
	first := Advance(nil, now, 10)
	require.Equal(t, biz.Hearing{Last: now, Least: 10_000}, first)
	require.Equal(t, biz.Hearing{Last: now, Least: 30_000}, Advance(nil, now, biz.Forever), "ttl -1 counts as 30 s")

	for _, row := range []struct {
		name   string
		before biz.Hearing
		at     int64
		ttl    biz.TTL
		after  biz.Hearing
	}{
		{
			"a gap counts in full up to half of least", first, now + 5_000, 20,
			biz.Hearing{Heard: 5_000, Last: now + 5_000, Least: 10_000},
		},
		{
			"a longer one counts as half of least, and reports have resumed", first, now + 5_001, 20,
			biz.Hearing{Heard: 5_000, Resumed: 5_000, Last: now + 5_001, Least: 10_000},
		},
		{
			"half a second counts in full however small least is", biz.Hearing{Last: now, Least: 500}, now + 500, 1,
			biz.Hearing{Heard: 500, Last: now + 500, Least: 500},
		},
		{
			"a clock that was put back adds nothing, and is the new base", first, now - 3_600_000, 20,
			biz.Hearing{Last: now - 3_600_000, Least: 10_000},
		},
		{
			"a ttl of least renews it", first, now + 1_000, 10,
			biz.Hearing{Heard: 1_000, Last: now + 1_000, Least: 10_000, LeastAt: 1_000},
		},
		{
			"a smaller ttl replaces it", first, now + 1_000, 2,
			biz.Hearing{Heard: 1_000, Last: now + 1_000, Least: 2_000, LeastAt: 1_000},
		},
		{
			"least lasts for three least", biz.Hearing{Heard: 29_000, Last: now, Least: 10_000}, now + 1_000, 20,
			biz.Hearing{Heard: 30_000, Last: now + 1_000, Least: 10_000},
		},
		{
			"and is replaced after that", biz.Hearing{Heard: 29_000, Last: now, Least: 10_000}, now + 1_001, biz.Forever,
			biz.Hearing{Heard: 30_001, Last: now + 1_001, Least: 20_000, LeastAt: 30_001},
		},
		{
			"by twice as much at most", biz.Hearing{Heard: 3_001, Last: now, Least: 1_000}, now + 100, 3_600,
			biz.Hearing{Heard: 3_101, Last: now + 100, Least: 2_000, LeastAt: 3_101},
		},
	} {
		t.Run(row.name, func(t *testing.T) { require.Equal(t, row.after, Advance(&row.before, row.at, row.ttl)) })
	}
}
