// Package names has the chat's names in podlink and in the registry, for its pods and its callers.
package names

// The chat's names.
const (
	Namespace = "demo"
	Service   = "chat"
)
