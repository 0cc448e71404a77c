package data

import "podlink/internal/biz"

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

// layout is the key of a text that names the layout of all keys.
func (p Keyspace) layout() string { return string(p) + ":layout" }

// selfTest is the key, of the kind, that only the self-test with the id uses.
func (p Keyspace) selfTest(kind, id string) string {
	return string(p) + ":selftest:" + kind + ":" + id
}
