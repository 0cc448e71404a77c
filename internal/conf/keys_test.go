package conf

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/durationpb"

	"podlink/internal/protofield"
)

// texts returns the value of every key as text, by YAML path.
func texts(m protoreflect.Message, path string) map[string]string {
	out := make(map[string]string)
	fields := m.Descriptor().Fields()
	for i := range fields.Len() {
		field := fields.Get(i)
		key := path + string(field.Name())
		switch value := m.Get(field); {
		case protofield.IsDuration(field):
			out[key] = value.Message().Interface().(*durationpb.Duration).AsDuration().String()
		case field.IsList():
			parts := make([]string, value.List().Len())
			for i := range parts {
				parts[i] = value.List().Get(i).String()
			}
			out[key] = strings.Join(parts, ", ")
		case field.Message() != nil:
			maps.Copy(out, texts(value.Message(), key+"."))
		default:
			out[key] = fmt.Sprint(value.Interface())
		}
	}
	return out
}

func keys(m protoreflect.Message, path string) []string {
	return slices.Sorted(maps.Keys(texts(m, path)))
}
