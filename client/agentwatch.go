package client

import v1 "podlink/api/podlink/v1"

// agentWatcher lets an agent ask podlink at once about what a watch says. Nothing else depends on it: what the guard knows counts for
// CacheTTL, and by the lease, as without a watch.
type agentWatcher struct {
	guard    *guard
	sessions *sessions
}

// noted implements linkWatcher.
func (a agentWatcher) noted(message *v1.WatchLinksReply) {
	a.guard.cache.noted(message)
	for _, c := range message.GetChanges() {
		a.sessions.changed(c)
		a.guard.changed(c.GetLink().GetUid())
	}
}

// broke implements linkWatcher.
func (a agentWatcher) broke() { a.guard.cache.broke() }
