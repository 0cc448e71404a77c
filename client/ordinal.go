package client

import (
	"errors"
	"fmt"
	"math"
	"os"
	"regexp"
	"strconv"
	"strings"
)

// maxOrdinalDigits is the length of the largest ordinal that is read from a name. More digits are a hash or a time.
const maxOrdinalDigits = 5

var (
	// ofDeployment matches the end of the name of a Deployment's pod: the hash of its ReplicaSet, and five random characters, which
	// may all be digits.
	ofDeployment = regexp.MustCompile(`-[bcdfghjklmnpqrstvwxz2456789]*[2456789][bcdfghjklmnpqrstvwxz2456789]*-[2456789]{5}$`)
	// ofHost matches the name of a machine that is named after its IPv4 address.
	ofHost = regexp.MustCompile(`^ip(-\d{1,3}){4}$`)
)

// podOrdinal returns the ordinal of this process's pod.
func podOrdinal(o AgentOptions) (int32, error) {
	if o.PodOrdinal != nil {
		if *o.PodOrdinal < 0 {
			return 0, fmt.Errorf("AgentOptions.PodOrdinal must not be negative, is %d", *o.PodOrdinal)
		}
		return *o.PodOrdinal, nil
	}
	name, from := o.PodName, "AgentOptions.PodName"
	if name == "" {
		name, from = os.Getenv("POD_NAME"), "POD_NAME"
	}
	if name == "" {
		var err error
		from = "the host name"
		if name, err = os.Hostname(); err != nil {
			return 0, fmt.Errorf("neither AgentOptions.PodName nor POD_NAME is set, and the host has no name: %w", err)
		}
	}
	ordinal, err := parseOrdinal(name)
	if err != nil {
		return 0, fmt.Errorf("%s is %q: %w; set AgentOptions.PodOrdinal if the pod has an ordinal all the same", from, name, err)
	}
	return ordinal, nil
}

// parseOrdinal returns the ordinal that the name of a StatefulSet's pod ends with.
func parseOrdinal(name string) (int32, error) {
	set, digits, found := cutLast(name, "-")
	switch {
	case !found || set == "" || digits == "" || strings.Trim(digits, "0123456789") != "":
		return 0, errors.New("it does not end with an ordinal, as chat-2 of a StatefulSet does")
	case len(digits) > 1 && digits[0] == '0':
		return 0, errors.New("its last number begins with 0, which an ordinal does not")
	case len(digits) > maxOrdinalDigits:
		return 0, fmt.Errorf("its last number has more than %d digits, which is hardly an ordinal", maxOrdinalDigits)
	case ofDeployment.MatchString(name):
		return 0, errors.New("it is that of a Deployment's pod, whose last part is random")
	case ofHost.MatchString(name):
		return 0, errors.New("it is that of a machine with this address")
	}
	ordinal, err := strconv.ParseInt(digits, 10, 32)
	if err != nil || ordinal > math.MaxInt32 {
		return 0, fmt.Errorf("its last number is no ordinal: %w", err)
	}
	return int32(ordinal), nil
}

// cutLast cuts the text around the last separator.
func cutLast(text, separator string) (before, after string, found bool) {
	i := strings.LastIndex(text, separator)
	if i < 0 {
		return text, "", false
	}
	return text[:i], text[i+len(separator):], true
}
