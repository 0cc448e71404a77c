package biz

import (
	"fmt"
	"math"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// The limits of names and values, as documented in docs/api.md.
const (
	maxNameLen     = 128
	maxUIDLen      = 256
	maxStateLen    = 1024
	maxInstanceLen = 128
	maxAddressLen  = 255

	maxLabels        = 16
	maxSelector      = 8
	maxLabelValueLen = 128
	maxAvoid         = 16
)

// MaxGeneration is the largest generation and sequence. The store's numbers are doubles, exact up to 2^53.
const MaxGeneration Generation = 1<<52 - 1

// MaxEpoch is the largest epoch of a link. Scripts calculate with doubles, which are exact up to 2^53, and there must be room
// for a greater epoch.
const MaxEpoch Epoch = 1<<53 - 2

// validateName checks a namespace or a service. The allowed characters exclude the separators of the store's keys, so that
// different names never give the same key.
func validateName(field, name string) error {
	if !isName(name) {
		return &InvalidArgumentError{field, "must be " + nameRule}
	}
	return nil
}

const nameRule = "1 to 128 characters A-Z a-z 0-9 . _ -, the first and last a letter or digit"

func isName(name string) bool {
	if name == "" || len(name) > maxNameLen || !alphanumeric(name[0]) || !alphanumeric(name[len(name)-1]) {
		return false
	}
	return consistsOf(name, "._-")
}

// consistsOf reports whether the text has letters, digits and the other characters only.
func consistsOf(text, others string) bool {
	for i := range len(text) {
		if c := text[i]; !alphanumeric(c) && strings.IndexByte(others, c) < 0 {
			return false
		}
	}
	return true
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
	if strings.ContainsFunc(text, unicode.IsControl) {
		return &InvalidArgumentError{field, "must not contain control characters"}
	}
	return nil
}

// validateInstance checks the name of a process; empty is none.
func validateInstance(instance string) error {
	if len(instance) > maxInstanceLen || !consistsOf(instance, "._:-") {
		return &InvalidArgumentError{"instance_id", "must be at most 128 characters A-Z a-z 0-9 . _ : -"}
	}
	return nil
}

// validateCounter checks a generation or a sequence, which only a report with an instance may have.
func validateCounter[N ~int64](field string, n N, instance string) error {
	if n != 0 && instance == "" {
		return firstError(validateGeneration(field, Generation(n)), &InvalidArgumentError{field, "must be 0 without an instance_id"})
	}
	return validateGeneration(field, Generation(n))
}

// validateGeneration checks a generation, or a number with the same range.
func validateGeneration(field string, n Generation) error {
	if n < 0 || n > MaxGeneration {
		return &InvalidArgumentError{field, fmt.Sprintf("must be 0 to %d", MaxGeneration)}
	}
	return nil
}

// validateLabels checks the labels of a pod, or a selector of labels. Errors name the map only: a malformed name is unfit for
// an error.
func validateLabels(field string, labels map[string]string, limit int) error {
	if len(labels) > limit {
		return &InvalidArgumentError{field, fmt.Sprintf("must have at most %d entries", limit)}
	}
	for name, value := range labels {
		if !isName(name) {
			return &InvalidArgumentError{field, "must have names of " + nameRule}
		}
		if len(value) > maxLabelValueLen || !utf8.ValidString(value) || strings.ContainsFunc(value, unicode.IsControl) {
			return &InvalidArgumentError{field, "must have values of at most 128 bytes of UTF-8 without control characters"}
		}
	}
	return nil
}

// validateAddress checks host:port; empty is none. An IPv6 zone is refused: it has a meaning on the pod's machine only.
func validateAddress(address string) error {
	if address == "" {
		return nil
	}
	host, port, err := net.SplitHostPort(address)
	n, portErr := strconv.ParseUint(port, 10, 16)
	if len(address) > maxAddressLen || err != nil || portErr != nil || n == 0 || !isHost(host) {
		return &InvalidArgumentError{"address", "must be host:port, at most 255 bytes: a name or an IP address, and 1 to 65535"}
	}
	return nil
}

func isHost(host string) bool {
	ip, err := netip.ParseAddr(host)
	if err == nil {
		return ip.Zone() == ""
	}
	return host != "" && alphanumeric(host[0]) && consistsOf(host, "._-")
}

// validateAvoid checks the pods that are not for a new link.
func validateAvoid(pods []PodID) error {
	if len(pods) > maxAvoid {
		return &InvalidArgumentError{"avoid_pods", fmt.Sprintf("must have at most %d entries", maxAvoid)}
	}
	for i := range pods {
		if err := validatePodOf(fmt.Sprintf("avoid_pods[%d]", i), &pods[i]); err != nil {
			return err
		}
	}
	return nil
}

// validatePod checks the required pod_id.
func validatePod(pod *PodID) error { return validatePodOf("pod_id", pod) }

// validatePodOf checks a required pod; nil is an unset field, which must not be taken for pod 0.
func validatePodOf(field string, pod *PodID) error {
	if pod == nil {
		return &InvalidArgumentError{field, "is required"}
	}
	return validateNotNegative(field, int32(*pod))
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

// validateCordonTTL checks how long a cordon lasts; nil is forever.
func validateCordonTTL(ttl *TTL) error {
	if ttl != nil && *ttl < 1 {
		return &InvalidArgumentError{"ttl_seconds", fmt.Sprintf("must be 1 to %d", math.MaxInt32)}
	}
	return nil
}

func validateRouting(field string, r Routing) error {
	if r < Ready || r > Shutdown {
		return &InvalidArgumentError{field, "must be READY, DENY_NEW or SHUTDOWN"}
	}
	return nil
}

func validateKeep(seconds int32) error {
	if seconds < -1 {
		return &InvalidArgumentError{"keep_seconds", fmt.Sprintf("must be -1 to %d", math.MaxInt32)}
	}
	return nil
}

// validateTerms checks the terms of a new link. Only the store can compare an epoch with its clock.
func validateTerms(terms SetTerms) error {
	return firstError(
		validateGeneration("claim", terms.Claim),
		validateOptionalEpoch("above_epoch", terms.Above),
		validateExpected(terms.Expected),
	)
}

func validateExpected(epoch *Epoch) error { return validateOptionalEpoch("expected_epoch", epoch) }

func validateOptionalEpoch(field string, epoch *Epoch) error {
	if epoch == nil {
		return nil
	}
	return validateEpoch(field, *epoch)
}

func validateEpoch(field string, epoch Epoch) error {
	if epoch < 0 || epoch > MaxEpoch {
		return &InvalidArgumentError{field, fmt.Sprintf("must be 0 to %d", MaxEpoch)}
	}
	return nil
}

// validateBatch checks the size of a batch and each of its entries.
func validateBatch(field string, entries []string, limit int, entry func(field, text string) error) error {
	if err := validateSize(field, len(entries), limit); err != nil {
		return err
	}
	for i, text := range entries {
		if err := entry(fmt.Sprintf("%s[%d]", field, i), text); err != nil {
			return err
		}
	}
	return nil
}

func validateSize(field string, size, limit int) error {
	if size == 0 || size > limit {
		return &InvalidArgumentError{field, fmt.Sprintf("must have 1 to %d entries", limit)}
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
