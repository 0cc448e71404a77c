package server

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"mime"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"unicode"

	"github.com/gorilla/mux"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	v1 "podlink/api/podlink/v1"
	"podlink/internal/biz"
	"podlink/internal/protofield"
	"podlink/internal/service"
)

// deferError returns decode as a Kratos decoder that records the error in the request's context instead of returning it.
func deferError(decode func(*http.Request, protoreflect.Message) error) func(*http.Request, any) error {
	return func(r *http.Request, target any) error {
		d, message := decodingFrom(r.Context()), target.(proto.Message).ProtoReflect()
		if d.access != nil {
			d.pay(d.access.prices.request(message.Descriptor()))
		}
		if d.err == nil {
			d.fail(decode(r, message))
		}
		return nil
	}
}

func invalid(field, detail string) error {
	return &biz.InvalidArgumentError{Field: shorten(field), Detail: detail}
}

// unknownName returns the error for a name that the API does not have. The name goes to the caller only, not to the log: it
// is arbitrary text, perhaps a uid.
func unknownName(name, detail string) error {
	return service.PublicError(invalid(name, detail)).WithCause(errors.New("the given name " + detail))
}

// shorten bounds the length of a caller's text that is returned in an error, and quotes it if it is empty or can't be seen.
func shorten(name string) string {
	const limit = 64
	name = strings.ToValidUTF8(name, "?")
	if len(name) > limit {
		name = strings.ToValidUTF8(name[:limit], "") + "…"
	}
	unseen := func(r rune) bool { return unicode.IsSpace(r) || !unicode.IsGraphic(r) }
	if name == "" || strings.ContainsFunc(name, unseen) {
		return strconv.Quote(name)
	}
	return name
}

// fieldNamed returns the field with that JSON name (podId) or proto name (pod_id); nil when there is none.
func fieldNamed(message protoreflect.MessageDescriptor, name string) protoreflect.FieldDescriptor {
	if field := message.Fields().ByJSONName(name); field != nil {
		return field
	}
	return message.Fields().ByTextName(name)
}

// decodeBody decodes the JSON body into m. A missing body counts as an empty object.
func decodeBody(r *http.Request, m protoreflect.Message) error {
	if r.ContentLength == 0 {
		return nil
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return bodyError(err)
	}
	if len(body) == 0 {
		return nil
	}
	if err := checkMediaType(r.Header); err != nil {
		return err
	}
	if err := protojson.Unmarshal(body, m.Interface()); err != nil {
		return jsonError(body, m.Descriptor(), m.Type())
	}
	if bytes.Contains(body, []byte("null")) {
		if name := nullField(body, m.Descriptor()); name != "" {
			return invalid(name, "must not be null; leave it out")
		}
	}
	decodingFrom(r.Context()).body = body
	return nil
}

func bodyError(err error) error {
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &tooLarge):
		return v1.ErrorBodyTooLarge("the body must not be over %d bytes", tooLarge.Limit)
	case errors.Is(err, os.ErrDeadlineExceeded):
		return invalid("body", "was not received in time")
	default:
		return invalid("body", "was cut off")
	}
}

func checkMediaType(header http.Header) error {
	if media := header.Get("Content-Type"); media != "application/json" && !isJSON(media) {
		return v1.ErrorUnsupportedMediaType("Content-Type must be application/json, in UTF-8")
	}
	if encoding := header.Get("Content-Encoding"); encoding != "" && encoding != "identity" {
		return v1.ErrorUnsupportedMediaType("Content-Encoding must be absent: compressed bodies are not supported")
	}
	return nil
}

// isJSON reports whether a media type, in any valid spelling, is JSON in UTF-8.
func isJSON(media string) bool {
	media, params, err := mime.ParseMediaType(media)
	charset := params["charset"]
	return err == nil && media == "application/json" && (charset == "" || strings.EqualFold(charset, "utf-8"))
}

// jsonError returns why protojson rejected body: the syntax, or the first field that does not decode by itself. protojson's
// own messages are unstable by design and quote the body.
func jsonError(body []byte, message protoreflect.MessageDescriptor, typ protoreflect.MessageType) error {
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(body, &fields); err != nil || fields == nil {
		return invalid("body", "must be a JSON object")
	}
	for _, name := range slices.Sorted(maps.Keys(fields)) {
		field := fieldNamed(message, name)
		if field == nil {
			return unknownName(name, "is not a field of this request")
		}
		single, err := json.Marshal(map[string]json.RawMessage{name: fields[name]})
		if err != nil || protojson.Unmarshal(single, typ.New().Interface()) != nil {
			return invalid(string(field.Name()), "must be "+expected(field))
		}
	}
	if name := repeatedName(body, message); name != "" {
		return invalid(name, "appears twice in the body")
	}
	return invalid("body", "must be a JSON object in valid UTF-8")
}

// nullField returns the first field that is null, "" when there is none. protojson takes null for absence: a caller whose
// expected_epoch is null by mistake would get an unconditional change. A message may be null, as Kratos' HTTP client sends an
// unset one.
func nullField(body []byte, message protoreflect.MessageDescriptor) string {
	decoder := json.NewDecoder(bytes.NewReader(body))
	if open, err := decoder.Token(); err != nil || open != json.Delim('{') {
		return ""
	}
	for decoder.More() {
		token, err := decoder.Token()
		name, isName := token.(string)
		var value json.RawMessage
		if err != nil || !isName || decoder.Decode(&value) != nil {
			return ""
		}
		field := fieldNamed(message, name)
		switch {
		case field == nil:
		case field.Message() == nil || field.IsList() || field.IsMap():
			if string(value) == "null" {
				return string(field.Name())
			}
			if inner := nullInList(value, field); inner != "" {
				return string(field.Name()) + inner
			}
		default:
			if inner := nullField(value, field.Message()); inner != "" {
				return string(field.Name()) + "." + inner
			}
		}
	}
	return ""
}

// nullInList returns where in a list of messages a field is null, as in "[3].uid"; "" when there is none.
func nullInList(value json.RawMessage, field protoreflect.FieldDescriptor) string {
	var entries []json.RawMessage
	if !field.IsList() || field.Message() == nil || json.Unmarshal(value, &entries) != nil {
		return ""
	}
	for i, entry := range entries {
		if inner := nullField(entry, field.Message()); inner != "" {
			return fmt.Sprintf("[%d].%s", i, inner)
		}
	}
	return ""
}

// repeatedName returns the field that appears twice in the object, in either spelling; "" when there is none.
func repeatedName(body []byte, message protoreflect.MessageDescriptor) string {
	seen := make(map[protoreflect.Name]bool)
	decoder := json.NewDecoder(bytes.NewReader(body))
	if _, err := decoder.Token(); err != nil {
		return ""
	}
	for decoder.More() {
		token, err := decoder.Token()
		name, isName := token.(string)
		if err != nil || !isName {
			return ""
		}
		field := fieldNamed(message, name)
		if field == nil {
			return name
		}
		if seen[field.Name()] {
			return string(field.Name())
		}
		seen[field.Name()] = true
		var skipped json.RawMessage
		if decoder.Decode(&skipped) != nil {
			return ""
		}
	}
	return ""
}

// expected describes the JSON value of a field.
func expected(field protoreflect.FieldDescriptor) string {
	kind := map[protoreflect.Kind]string{
		protoreflect.StringKind: "a string in valid UTF-8",
		protoreflect.BoolKind:   "true or false",
		protoreflect.Int32Kind:  "an integer of 32 bits",
		protoreflect.Int64Kind:  "an integer of 64 bits",
	}[field.Kind()]
	if field.Enum() != nil {
		values := field.Enum().Values()
		names := make([]string, values.Len())
		for i := range names {
			names[i] = string(values.Get(i).Name())
		}
		kind = "one of " + strings.Join(names, ", ")
	}
	if field.Message() != nil {
		kind = "an object with the fields of " + string(field.Message().Name())
	}
	switch {
	case field.IsMap():
		return "an object, each name once and each value " + expected(field.MapValue())
	case field.IsList():
		return "a list, each entry " + kind
	default:
		return kind
	}
}

// decodeQuery decodes the query into m. POST and PUT take a body and no query, other methods a query and no body: so no two
// places can contradict each other.
func decodeQuery(r *http.Request, m protoreflect.Message) error {
	takesBody := r.Method == http.MethodPost || r.Method == http.MethodPut
	if !takesBody && r.ContentLength != 0 {
		return invalid("body", "must be absent with "+r.Method)
	}
	if r.URL.RawQuery == "" {
		return nil
	}
	query, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return invalid("query", "must be percent-encoded")
	}
	inPath := mux.Vars(r)
	for _, name := range slices.Sorted(maps.Keys(query)) {
		field := fieldNamed(m.Descriptor(), name)
		if field == nil {
			return unknownName(name, "is not a parameter of this request")
		}
		if _, ok := inPath[string(field.Name())]; ok || takesBody {
			return invalid(string(field.Name()), "must not be in the query")
		}
		if len(query[name]) > 1 || m.Has(field) {
			return invalid(string(field.Name()), "appears twice in the query")
		}
		if err := protofield.Set(m, field, query[name][0]); err != nil {
			return invalid(string(field.Name()), err.Error())
		}
	}
	return nil
}

// decodePath decodes the path's variables into m. A field that is also in the body must have the same value there.
func decodePath(r *http.Request, m protoreflect.Message) error {
	body, vars, fields := decodingFrom(r.Context()).body, mux.Vars(r), m.Descriptor().Fields()
	for i := range fields.Len() {
		field := fields.Get(i)
		escaped, ok := vars[string(field.Name())]
		if !ok {
			continue
		}
		name := string(field.Name())
		text, err := url.PathUnescape(escaped)
		if err != nil {
			return invalid(name, "must be percent-encoded")
		}
		var before protoreflect.Value
		if inBody := m.Has(field) || emptyInBody(body, field); inBody {
			before = m.Get(field)
		}
		if err := protofield.Set(m, field, text); err != nil {
			return invalid(name, err.Error())
		}
		if before.IsValid() && !before.Equal(m.Get(field)) {
			return invalid(name, "differs between the path and the body")
		}
	}
	return nil
}

// emptyInBody reports whether the body sets the field to an empty string, which the decoded message can't tell from absence.
func emptyInBody(body []byte, field protoreflect.FieldDescriptor) bool {
	if !bytes.Contains(body, []byte(`""`)) {
		return false
	}
	var fields map[string]json.RawMessage
	if json.Unmarshal(body, &fields) != nil {
		return false
	}
	return string(fields[field.JSONName()]) == `""` || string(fields[field.TextName()]) == `""`
}
