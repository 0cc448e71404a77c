package data

import "podlink/internal/biz"

// Keyspace makes the keys; its value is the configured prefix, so that several podlinks can share one Redis. Namespace and
// service have no ':' and the uid comes last, so two different names never make one key. docs/data-model.md says the same.
type Keyspace string

// links is a hash: service -> "<pod> <epoch> <expiry>", all links of one uid.
func (p Keyspace) links(namespace, uid string) string {
	return string(p) + ":link:" + namespace + ":" + uid
}

// pods is a hash: pod -> "<load> <given> <routing> <ttl> <heartbeat> <state>", all pods of one service; and the field
// "reported" once a pod was removed as the last one.
func (p Keyspace) pods(key biz.ServiceKey) string {
	return string(p) + ":pods:" + key.Namespace + ":" + key.Service
}

// workload is a hash: state, update_ms.
func (p Keyspace) workload(namespace, service string) string {
	return string(p) + ":workload:" + namespace + ":" + service
}

// selfTest is a key that only one self-test touches, of the kind that the script under test works on.
func (p Keyspace) selfTest(kind, id string) string {
	return string(p) + ":selftest:" + kind + ":" + id
}
