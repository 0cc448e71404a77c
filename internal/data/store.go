// Package data implements the repositories of biz on Redis: links, pod reports and workload states.
//
// Two things to know before changing anything here. Every mutation is one Lua script on one key (lua/), so it is atomic.
// And all commands go through an rdb.Runner, which sends a mutation at most once.
package data

import (
	"context"

	"podlink/internal/rdb"
)

// store is the runner and the keyspace that the repositories share.
type store struct {
	runner *rdb.Runner
	keys   Keyspace
}

// run executes the script on the key. It returns errors of the domain.
func (s store) run(ctx context.Context, script *rdb.Script, key string, args ...any) (rdb.Reply, error) {
	reply, err := s.runner.Run(ctx, script, key, args...)
	return reply, domainError(err)
}
