package conf

import (
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
)

func defaultFleet() *Fleet {
	return &Fleet{
		Index: true, FeedMaxAge: durationpb.New(10 * time.Minute), CensusRate: 20_000, SweepEvery: durationpb.New(24 * time.Hour),
		JobRate: 2000,
	}
}

// fleet checks the change feed and the index. With the index off the other keys stay allowed: it can be switched off, and on again, by
// one variable.
func (v *violations) fleet(c *Fleet) {
	v.duration("fleet.feed_max_age", c.GetFeedMaxAge().AsDuration(), time.Minute, 24*time.Hour)
	v.between("fleet.census_rate", c.GetCensusRate(), 100, 1_000_000)
	v.duration("fleet.sweep_every", c.GetSweepEvery().AsDuration(), time.Hour, 30*24*time.Hour)
	v.between("fleet.job_rate", c.GetJobRate(), 1, 1_000_000)
}
