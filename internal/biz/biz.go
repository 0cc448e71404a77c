package biz

import "github.com/google/wire"

// ProviderSet is what Wire needs of this package.
var ProviderSet = wire.NewSet(NewPodViews, NewLinkUsecase, NewPodUsecase, NewWorkloadUsecase)
