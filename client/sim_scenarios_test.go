package client_test

import (
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"podlink/client"
	"podlink/test/kit/sim"
)

// simScenarios are faults that must not cost a session, whatever is an excuse in a plan that is drawn. Their times are in ttl.
var simScenarios = map[string][]sim.Fault{
	"podlink is killed for longer than the ttl": {{Kind: sim.PodlinkKilled, At: 2, Lasts: 4}},
	"podlink is frozen for longer than the ttl": {{Kind: sim.PodlinkFrozen, At: 2, Lasts: 4}},
	"podlink flaps":                                     {{Kind: sim.PodlinkFlapping, At: 2, Lasts: 8}},
	"one of two podlinks is killed":                     {{Kind: sim.OnePodlinkAway, At: 2, Lasts: 4}},
	"the store is killed for longer than the ttl":       {{Kind: sim.StoreKilled, At: 2, Lasts: 4}},
	"the store is frozen for longer than the ttl":       {{Kind: sim.StoreFrozen, At: 2, Lasts: 4}},
	"all pods are cut off from podlink":                 {{Kind: sim.PodsCut, At: 2, Lasts: 3}},
	"the store is flushed":                              {{Kind: sim.StoreFlushed, At: 2}},
	"the store is flushed twice":                        {{Kind: sim.StoreFlushed, At: 2}, {Kind: sim.StoreFlushed, At: 4}},
	"the store loses its latest writes in a failover":   {{Kind: sim.StoreFailedOver, At: 2}},
	"a caller is cut off from podlink":                  {{Kind: sim.CallerCut, At: 2, Lasts: 5}},
	"answers are slow":                                  {{Kind: sim.AnswersSlow, At: 2, Lasts: 5}},
	"replies are lost":                                  {{Kind: sim.RepliesLost, At: 2, Lasts: 5}},
	"the data of a user are corrupt":                    {{Kind: sim.UserCorrupt, At: 2, Lasts: 5}},
	"the store is flushed after an outage of podlink":   {{Kind: sim.PodlinkKilled, At: 2, Lasts: 2}, {Kind: sim.StoreFlushed, At: 5}},
	"the store is flushed while no pod reaches podlink": flushedWhileCut,
	"users are moved by hand while others are corrupt":  {{Kind: sim.UserCorrupt, At: 1, Lasts: 6}, {Kind: sim.UsersMoved, At: 3}},
}

// flushedWhileCut: podlink knows nothing, and no pod can tell it anything.
var flushedWhileCut = []sim.Fault{{Kind: sim.PodsCut, At: 2, Lasts: 3}, {Kind: sim.StoreFlushed, At: 3}}

// inTTL returns faults whose times are given in ttl.
func inTTL(faults []sim.Fault, ttl time.Duration) []sim.Fault {
	if faults == nil {
		return nil
	}
	plan := make([]sim.Fault, len(faults))
	for i, f := range faults {
		f.At, f.Lasts = f.At*ttl, f.Lasts*ttl //nolint:durationcheck // They are numbers of ttl.
		plan[i] = f
	}
	return plan
}

// TestSimulationScenarios: no session of a pod that lives is lost or moved by a fault that is not the pod's.
func TestSimulationScenarios(t *testing.T) {
	t.Parallel()
	ttls := []time.Duration{3 * time.Second}
	if client.Repeats() {
		ttls = append(ttls, 15*time.Second)
	}
	users := 20
	if client.RaceEnabled {
		users = 10
	}
	for name, faults := range simScenarios {
		t.Run(name, func(t *testing.T) {
			for _, ttl := range ttls {
				callers, stay := simCallers, false
				if slices.ContainsFunc(faults, func(f sim.Fault) bool { return f.Kind == sim.StoreFlushed }) {
					// A caller that does not know a link, or knows that it ends soon, may make another before the pod has restored it.
					callers, stay = 1, true
				}
				result := simulate(t, simOptions{
					seed: uint64(ttl), users: users, callers: callers, stay: stay, ttl: ttl, guardCacheTTL: simCacheTTL(ttl), plan: inTTL(faults, ttl), strict: true,
				})
				result.print(t)
				require.Empty(t, result.violations)
			}
		})
	}
}
