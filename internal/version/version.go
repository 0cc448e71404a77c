// Package version has the version of the build.
package version

// Version is set by the linker: make build passes the output of git describe.
var Version = "dev"
