// Package client is podlink for Go: for those who call a stateful service, and for the pods of it.
//
//   - Client calls podlink itself, over gRPC or HTTP.
//   - Router sends each call of a Kratos client to the pod that holds its user.
//   - Agent reports a pod to podlink, keeps the links of its sessions, and empties it before it stops.
//   - Agent.Guard lets a pod serve only the users that are linked to it.
//
// Two things to know. What a Router or a Guard has cached is a hint that may be some seconds old: it is the pod that says
// whose user it is, and the epoch, passed on to the pod's own storage, that keeps a stale owner from writing. And a
// mutation is repeated only where it is certain that it was not carried out; otherwise the error is ErrOutcomeUnknown.
package client
