// Package rdb runs Lua scripts and reads on Redis: a single server, a primary that sentinels watch, or a cluster.
//
// Two things to know before changing anything here. A mutation is sent at most once (exec.go): the driver would repeat a
// command whose reply was lost, and a script that runs twice can undo what another caller did in between. And concurrent
// calls share round trips (coalesce.go), so a command may outlive the caller that queued it.
//
// The package knows no domain and no configuration file: it takes Options, and returns errors by Class.
package rdb
