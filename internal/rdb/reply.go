package rdb

import (
	"fmt"
	"strings"
)

// Reply is the reply of a script: a status, and the values that the script's header documents, as one text or as an array.
type Reply struct {
	Script string
	Text   string // "" if the reply is an array
	Values []any
	// Unconfirmed is why replicas have not confirmed the mutation; nil if they have, or need not.
	Unconfirmed error
	// Err is why the script has no reply for this key of RunAll; nil if it has. Run returns its error instead.
	Err error
}

// newReply converts the value that the driver returned for a script.
func newReply(script *Script, value any, unconfirmed error) (Reply, error) {
	reply := Reply{Script: script.Name, Unconfirmed: unconfirmed}
	switch v := value.(type) {
	case string:
		reply.Text = v
	case []any:
		reply.Values = v
	default:
		return Reply{}, fmt.Errorf("%s: reply of type %T contradicts its header", script.Name, value)
	}
	return reply, nil
}

// Status returns the first word of the reply.
func (r Reply) Status() string {
	if r.Text != "" {
		status, _, _ := strings.Cut(r.Text, " ")
		return status
	}
	if len(r.Values) == 0 {
		return ""
	}
	text, _ := r.Values[0].(string)
	return text
}

// Malformed returns the error for a reply that contradicts the script's header.
func (r Reply) Malformed() error {
	return fmt.Errorf("%s: reply %q %q contradicts its header", r.Script, r.Text, r.Values)
}

// Fields returns Values[from:], which must be count strings.
func (r Reply) Fields(from, count int) ([]string, error) { return r.texts(r.Values, from, count) }

// Nested returns the nested array Values[i], which must be count strings or empty; nil if it is empty.
func (r Reply) Nested(i, count int) ([]string, error) {
	if i >= len(r.Values) {
		return nil, r.Malformed()
	}
	values, ok := r.Values[i].([]any)
	if !ok {
		return nil, r.Malformed()
	}
	if len(values) == 0 {
		return nil, nil
	}
	return r.texts(values, 0, count)
}

func (r Reply) texts(values []any, from, count int) ([]string, error) {
	if len(values) != from+count {
		return nil, r.Malformed()
	}
	out := make([]string, count)
	for i := range out {
		text, ok := values[from+i].(string)
		if !ok {
			return nil, r.Malformed()
		}
		out[i] = text
	}
	return out, nil
}
