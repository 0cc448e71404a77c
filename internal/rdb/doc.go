// Package rdb runs Lua scripts and reads on Redis: a single server, a primary behind sentinels, or a cluster.
//
// Two things to know before changing anything here. A mutation is sent at most once (exec.go): the driver would retry a
// command whose reply was lost, and a script that runs twice can overwrite what another caller did in between. And
// concurrent calls on one kind of key share round trips (coalesce.go, lanes.go), so a command may outlive the call that queued
// it.
//
// A script takes this way: Run -> admit, evaluate -> send -> sendOnce (a mutation) or read -> coalescer.do -> sendAlone or
// sendBatch. Batches of reads (ReadAll, RunAll) go past the coalescer and the gate, in one pipeline of their own size.
//
// The package knows neither the domain nor the configuration file: it takes Options and classifies errors by Class.
package rdb
