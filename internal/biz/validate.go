package biz

import (
	"fmt"
	"math"
	"unicode"
	"unicode/utf8"
)

// The limits of names and values, as documented in docs/api.md.
const (
	maxNameLen  = 128
	maxUIDLen   = 256
	maxStateLen = 1024
)

// MaxEpoch is the largest epoch of a link. Scripts calculate with doubles, which are exact up to 2^53, and there must be room
// for a greater epoch.
const MaxEpoch Epoch = 1<<53 - 2

// validateName checks a namespace or a service. The allowed characters exclude the separators of the store's keys, so that
// different names never give the same key.
func validateName(field, name string) error {
	const detail = "must be 1 to 128 characters A-Z a-z 0-9 . _ -, the first and last a letter or digit"
	if name == "" || len(name) > maxNameLen || !alphanumeric(name[0]) || !alphanumeric(name[len(name)-1]) {
		return &InvalidArgumentError{field, detail}
	}
	for i := range len(name) {
		if c := name[i]; !alphanumeric(c) && c != '.' && c != '_' && c != '-' {
			return &InvalidArgumentError{field, detail}
		}
	}
	return nil
}

func alphanumeric(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9'
}

func validateUID(field, uid string) error { return validateText(field, uid, maxUIDLen) }

func validateState(state string) error { return validateText("state", state, maxStateLen) }

// validateText checks free-form text of 1 … limit bytes.
func validateText(field, text string, limit int) error {
	if text == "" || len(text) > limit {
		return &InvalidArgumentError{field, fmt.Sprintf("must be 1 to %d bytes long", limit)}
	}
	if !utf8.ValidString(text) {
		return &InvalidArgumentError{field, "must be valid UTF-8"}
	}
	for _, r := range text {
		if unicode.IsControl(r) {
			return &InvalidArgumentError{field, "must not contain control characters"}
		}
	}
	return nil
}

// validatePod checks a required pod; nil is an unset field, which must not be taken for pod 0.
func validatePod(pod *PodID) error {
	if pod == nil {
		return &InvalidArgumentError{"pod_id", "is required"}
	}
	return validateNotNegative("pod_id", int32(*pod))
}

func validateNotNegative(field string, n int32) error {
	if n < 0 {
		return &InvalidArgumentError{field, fmt.Sprintf("must be 0 to %d", math.MaxInt32)}
	}
	return nil
}

// validateTTL checks a time to live: Forever, or at least a second.
func validateTTL(field string, ttl TTL) error {
	if ttl != Forever && ttl < 1 {
		return &InvalidArgumentError{field, fmt.Sprintf("must be -1 or 1 to %d", math.MaxInt32)}
	}
	return nil
}

func validateKeep(seconds int32) error {
	if seconds < -1 {
		return &InvalidArgumentError{"keep_seconds", fmt.Sprintf("must be -1 to %d", math.MaxInt32)}
	}
	return nil
}

func validateExpected(epoch *Epoch) error {
	if epoch != nil && (*epoch < 0 || *epoch > MaxEpoch) {
		return &InvalidArgumentError{"expected_epoch", fmt.Sprintf("must be 0 to %d", MaxEpoch)}
	}
	return nil
}

// validateBatch checks the size of a batch and each of its entries.
func validateBatch(field string, entries []string, limit int, entry func(field, text string) error) error {
	if len(entries) == 0 || len(entries) > limit {
		return &InvalidArgumentError{field, fmt.Sprintf("must have 1 to %d entries", limit)}
	}
	for i, text := range entries {
		if err := entry(fmt.Sprintf("%s[%d]", field, i), text); err != nil {
			return err
		}
	}
	return nil
}

// distinct returns the entries without duplicates, in their order.
func distinct(entries []string) []string {
	seen := make(map[string]struct{}, len(entries))
	out := make([]string, 0, len(entries))
	for _, text := range entries {
		if _, twice := seen[text]; !twice {
			seen[text] = struct{}{}
			out = append(out, text)
		}
	}
	return out
}

// firstError returns the first error that is not nil.
func firstError(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}
