// Package data keeps links, pod reports and workload states in Redis: it implements the repositories of biz.
//
// Two things to know before changing anything here. Every mutation is one script on one key (lua/), so it happens wholly
// or not at all. And everything goes through an rdb.Runner, which sends a mutation at most once.
package data

import (
	"context"

	"podlink/internal/rdb"
)

// store is what the repositories share: the engine, and the keys in it.
type store struct {
	runner *rdb.Runner
	keys   Keyspace
}

// run executes the script on the key. Its errors are the domain's.
func (s store) run(ctx context.Context, script *rdb.Script, key string, args ...any) (rdb.Reply, error) {
	reply, err := s.runner.Run(ctx, script, key, args...)
	return reply, domainError(err)
}
