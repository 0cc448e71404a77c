// Package version tells which build this is.
package version

// Version is set by the linker: make build passes what git describes.
var Version = "dev"
