// Package certs keeps the TLS files of podlink and of its client up to date: it reads them again when their content changes.
package certs
