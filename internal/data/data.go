package data

import "github.com/google/wire"

// ProviderSet is what Wire needs of this package.
var ProviderSet = wire.NewSet(NewStore, NewLinkRepo, NewPodRepo, NewWorkloadRepo)
