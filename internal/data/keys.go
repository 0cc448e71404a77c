package data

import (
	"strconv"

	"podlink/internal/biz"
)

// Keyspace builds the keys. Its value is the configured prefix, so that several podlinks can share one Redis. Namespace and
// service contain no ':' and the uid comes last, so different names never give the same key. docs/data-model.md documents
// the keys.
type Keyspace string

// links is the key of a hash with all links of one uid: service -> "<pod> <epoch> <expiry>", or "<pod> <epoch> <expiry> <claim>"
// for a link that a process of the pod has claimed.
func (p Keyspace) links(namespace, uid string) string {
	return string(p) + ":link:" + namespace + ":" + uid
}

// service is the key of a sorted set with everything about the pods of one service. podmember.go parses its members.
func (p Keyspace) service(key biz.ServiceKey) string {
	return string(p) + ":service:" + key.Namespace + ":" + key.Service
}

// workload is the key of a hash with the fields state and update_ms.
func (p Keyspace) workload(namespace, service string) string {
	return string(p) + ":workload:" + namespace + ":" + service
}

// feed is the key of a stream with the changes of the links of one service; feed.go has the format of its entries.
func (p Keyspace) feed(key biz.ServiceKey) string {
	return string(p) + ":feed:" + key.Namespace + ":" + key.Service
}

// index is the key of a hash with the links to one pod of a service: uid -> "<epoch>" or "<epoch> <expiry in s>", and
// uncertainPrefix + uid -> "<noted in ms>".
func (p Keyspace) index(key biz.ServiceKey, pod biz.PodID) string {
	return string(p) + ":index:" + key.Namespace + ":" + key.Service + ":" + strconv.Itoa(int(pod))
}

// indexed is the key of a set of the pods of a service that have, or had, an index.
func (p Keyspace) indexed(key biz.ServiceKey) string {
	return string(p) + ":indexed:" + key.Namespace + ":" + key.Service
}

// services is the key of a set of all services, each as "<namespace>:<service>".
func (p Keyspace) services() string { return string(p) + ":services" }

// writers is the key of a hash of the podlink processes that write feeds: writer -> counter.
func (p Keyspace) writers() string { return string(p) + ":writers" }

// fleet is the key of a hash with the fields gaps and covered.
func (p Keyspace) fleet() string { return string(p) + ":fleet" }

// lease is the key of a text that names the holder of a lease.
func (p Keyspace) lease(name string) string { return string(p) + ":lease:" + name }

// job is the key of a hash with a job: created, started and ended in ms, lease and its expiry in ms, cancel, state, spec, by, progress.
func (p Keyspace) job(key biz.JobKey) string {
	return string(p) + ":job:" + key.Namespace + ":" + key.ID
}

// jobs is the key of a sorted set of the jobs of a namespace, each as "<created in ms>-<id>" with the score 0.
func (p Keyspace) jobs(namespace string) string { return string(p) + ":jobs:" + namespace }

// jobQueue is the key of a sorted set of the jobs that have not ended, each as "<namespace>:<id>" with the time when it was added, in ms.
func (p Keyspace) jobQueue() string { return string(p) + ":jobqueue" }

// layout is the key of a text that names the layout of all keys.
func (p Keyspace) layout() string { return string(p) + ":layout" }

// selfTest is the key, of the kind, that only the self-test with the id uses.
func (p Keyspace) selfTest(kind, id string) string {
	return string(p) + ":selftest:" + kind + ":" + id
}
