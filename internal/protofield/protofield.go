// Package protofield sets fields of protobuf messages from text, such as a URL parameter or an environment variable.
package protofield

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/durationpb"
)

const durationName protoreflect.FullName = "google.protobuf.Duration"

// IsDuration reports whether the field is a google.protobuf.Duration.
func IsDuration(field protoreflect.FieldDescriptor) bool {
	return field.Message() != nil && field.Message().FullName() == durationName
}

// Set parses text and sets the field of m: a string, bool, integer, double, duration such as 500ms, or comma-separated list of
// strings (empty text: an empty list). Errors are phrased to follow the field's name: "must be …".
func Set(m protoreflect.Message, field protoreflect.FieldDescriptor, text string) error {
	if field.IsList() && field.Kind() == protoreflect.StringKind {
		list := m.NewField(field).List()
		if text != "" {
			for part := range strings.SplitSeq(text, ",") {
				list.Append(protoreflect.ValueOfString(strings.TrimSpace(part)))
			}
		}
		m.Set(field, protoreflect.ValueOfList(list))
		return nil
	}
	value, err := parse(field, text)
	if err != nil {
		return err
	}
	m.Set(field, value)
	return nil
}

func parse(field protoreflect.FieldDescriptor, text string) (protoreflect.Value, error) {
	var none protoreflect.Value
	switch {
	case IsDuration(field):
		d, err := time.ParseDuration(text)
		if err != nil {
			return none, errors.New("must be a duration such as 500ms or 30s")
		}
		return protoreflect.ValueOfMessage(durationpb.New(d).ProtoReflect()), nil
	case field.Kind() == protoreflect.StringKind && !field.IsList():
		if !utf8.ValidString(text) {
			return none, errors.New("must be valid UTF-8")
		}
		return protoreflect.ValueOfString(text), nil
	case field.Kind() == protoreflect.BoolKind:
		if text != "true" && text != "false" {
			return none, errors.New("must be true or false")
		}
		return protoreflect.ValueOfBool(text == "true"), nil
	case field.Kind() == protoreflect.Int32Kind:
		n, err := integer(text, 32)
		if err != nil {
			return none, err
		}
		return protoreflect.ValueOfInt32(int32(n)), nil
	case field.Kind() == protoreflect.Int64Kind:
		n, err := integer(text, 64)
		if err != nil {
			return none, err
		}
		return protoreflect.ValueOfInt64(n), nil
	case field.Kind() == protoreflect.DoubleKind:
		x, err := strconv.ParseFloat(text, 64)
		if err != nil {
			return none, errors.New("must be a number such as 0.25")
		}
		return protoreflect.ValueOfFloat64(x), nil
	default:
		return none, errors.New("can't be set from text")
	}
}

// integer parses an integer in its canonical form: no plus sign, no leading zeros. So a pod has exactly one URL.
func integer(text string, bits int) (int64, error) {
	n, err := strconv.ParseInt(text, 10, bits)
	if err != nil || strconv.FormatInt(n, 10) != text {
		return 0, fmt.Errorf("must be an integer of %d bits", bits)
	}
	return n, nil
}
