package app

import "podlink/internal/biz"

// fleet is the use case of a podlink without an index.
func fleet(links biz.LinkRepo, views *biz.PodViews) *biz.FleetUsecase {
	return biz.NewFleetUsecase(nil, nil, links, views, func() bool { return false }, biz.FleetOptions{})
}

func watches() *biz.Watches { return biz.NewWatches(nil, nil) }
