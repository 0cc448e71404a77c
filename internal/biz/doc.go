// Package biz holds podlink's domain: links, pods and workloads, and the use-cases on them.
//
// The words:
//
//   - link: (namespace, uid, service) -> pod; persistent, or temporary and then gone to the millisecond.
//   - epoch: the fencing token of a link. Every owner that a link did not have before gets a greater one.
//   - report: what a pod of a service says about itself: state, load, routing. It counts for its ttl.
//   - live: the pod's last report is not older than its ttl, by the store's clock.
//   - usable: live, and READY for a new link; READY or DENY_NEW for a standing one.
//
// Two things to know before changing anything here. A link has at most one owner at any time, and whoever gets it
// gets a new epoch: every operation is one atomic step of the repo, never a read and then a write. And a mutation is
// attempted once: a use-case never repeats a call whose outcome it does not know.
//
// The package knows neither HTTP codes nor protobuf nor Redis.
package biz
