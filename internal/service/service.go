package service

import "github.com/google/wire"

// ProviderSet has the constructors of this package for Wire.
var ProviderSet = wire.NewSet(NewFleetService, NewLinkService, NewStateService, NewWorkloadService)
