// Package biz holds podlink's domain: links, pods and workloads, and the use-cases on them.
//
// The terms:
//
//   - link: (namespace, uid, service) -> pod; persistent, or temporary, which expires to the millisecond.
//   - epoch: the fencing token of a link. It grows with every change of owner.
//   - report: the heartbeat of a pod of a service, with its state, load and routing. It is valid for its ttl.
//   - live: the pod's last report is not older than its ttl, by the store's clock.
//   - usable: live, and READY for a new link; READY or DENY_NEW for an existing one.
//   - index: which uids have a link to a pod. It may have more, so that what it says is read before it is believed.
//   - gap: changes of links may be missing in the index. A census, a walk over all links, covers the gaps before it.
//   - sweep: a walk over the index, which removes what is stale.
//
// Two things to know before changing anything here. A link has at most one owner at any time, and a new owner gets a new
// epoch: every change is one atomic step of the repo, and what depends on an earlier read names the epoch that it read.
// And a mutation is attempted once: a use-case never retries a call whose outcome is unknown. (Updates of the index are no
// mutations in this sense. They converge, so they are repeated until the store has answered.)
//
// The package knows neither HTTP codes nor protobuf nor Redis.
package biz
