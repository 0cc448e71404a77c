// Package info reads the texts that Redis answers to INFO and CLUSTER INFO.
package info

import "strings"

// Field returns a field of the text, "" without it.
func Field(text, name string) string {
	_, rest, _ := strings.Cut("\n"+text, "\n"+name+":")
	value, _, _ := strings.Cut(rest, "\n")
	return strings.TrimSuffix(value, "\r")
}
