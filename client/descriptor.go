package client

import (
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"unicode/utf8"

	"google.golang.org/genproto/googleapis/api/annotations"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"

	v1 "podlink/api/podlink/v1"
)

// operation describes a call of the API.
type operation struct {
	reads bool // It changes nothing, and may be repeated at will.

	// Over HTTP:
	method, template string
	body             bool
}

// operations are all calls of the API by their names on gRPC, as in /podlink.v1.LinkService/GetLinkedPod.
var operations = describe(v1.Methods())

func describe(methods []protoreflect.MethodDescriptor) map[string]operation {
	found := map[string]operation{}
	for _, method := range methods {
		found[v1.Operation(method)] = describeMethod(method)
	}
	return found
}

func describeMethod(method protoreflect.MethodDescriptor) operation {
	options := method.Options().(*descriptorpb.MethodOptions)
	rule, _ := proto.GetExtension(options, annotations.E_Http).(*annotations.HttpRule)
	op := operation{
		reads: options.GetIdempotencyLevel() == descriptorpb.MethodOptions_NO_SIDE_EFFECTS,
		body:  rule.GetBody() != "",
	}
	switch {
	case rule.GetGet() != "":
		op.method, op.template = http.MethodGet, rule.GetGet()
	case rule.GetPut() != "":
		op.method, op.template = http.MethodPut, rule.GetPut()
	case rule.GetPost() != "":
		op.method, op.template = http.MethodPost, rule.GetPost()
	case rule.GetDelete() != "":
		op.method, op.template = http.MethodDelete, rule.GetDelete()
	}
	return op
}

var pathVariable = regexp.MustCompile(`\{(\w+)\}`)

// path is the path of a request, and what of it goes into the query. Kratos' own encoder would not escape what it puts into
// a path, and a uid may hold a slash.
func (op operation) path(request proto.Message) (string, error) {
	message, missing := request.ProtoReflect(), protoreflect.Name("")
	path := pathVariable.ReplaceAllStringFunc(op.template, func(variable string) string {
		field := message.Descriptor().Fields().ByName(protoreflect.Name(strings.Trim(variable, "{}")))
		if !message.Has(field) {
			missing = field.Name()
		}
		return escape(message.Get(field).String())
	})
	if missing != "" { // An empty segment would be another path, and its answer that there is no such one.
		return "", malformed(string(missing), "is required")
	}
	if op.body {
		return path, nil
	}
	query := url.Values{}
	message.Range(func(field protoreflect.FieldDescriptor, value protoreflect.Value) bool {
		if !strings.Contains(op.template, "{"+string(field.Name())+"}") {
			query.Set(field.JSONName(), value.String())
		}
		return true
	})
	if len(query) == 0 {
		return path, nil
	}
	return path + "?" + query.Encode(), nil
}

// notText names a field that can't be sent, because it is text and not UTF-8, as in items[1].uid; empty if there is none.
func notText(request proto.Message) string { return notTextIn(request.ProtoReflect()) }

func notTextIn(message protoreflect.Message) (bad string) {
	message.Range(func(field protoreflect.FieldDescriptor, value protoreflect.Value) bool {
		name := string(field.Name())
		switch {
		case field.IsMap():
			value.Map().Range(func(key protoreflect.MapKey, of protoreflect.Value) bool {
				if !utf8.ValidString(key.String()) || notTextValue(field.MapValue(), name, of) != "" {
					bad = name
				}
				return bad == ""
			})
		case field.IsList():
			for i := 0; i < value.List().Len() && bad == ""; i++ {
				bad = notTextValue(field, fmt.Sprintf("%s[%d]", name, i), value.List().Get(i))
			}
		default:
			bad = notTextValue(field, name, value)
		}
		return bad == ""
	})
	return bad
}

// notTextValue names what of one value can't be sent.
func notTextValue(field protoreflect.FieldDescriptor, name string, value protoreflect.Value) string {
	if field.Kind() == protoreflect.StringKind && !utf8.ValidString(value.String()) {
		return name
	}
	if field.Kind() == protoreflect.MessageKind {
		if bad := notTextIn(value.Message()); bad != "" {
			return name + "." + bad
		}
	}
	return ""
}

// escape makes a value one segment of a path, also where it is a dot or two, which would be taken for a way up.
func escape(value string) string {
	if strings.Trim(value, ".") == "" {
		return strings.ReplaceAll(value, ".", "%2E")
	}
	return url.PathEscape(value)
}
