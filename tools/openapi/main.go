// Command openapi completes the openapi.yaml that protoc-gen-openapi generates from the protos. The generator knows neither podlink's
// errors nor its credentials, gives the additional bindings of a call the call's own operation id, and writes no summaries.
//
// Usage: `go run ./tools/openapi openapi.yaml api/podlink/v1/error_reason.proto`.
package main

import (
	"bytes"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
	"google.golang.org/genproto/googleapis/api/annotations"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	v1 "podlink/api/podlink/v1"
)

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: openapi FILE REASONS.proto")
		os.Exit(2)
	}
	if err := rewrite(os.Args[1], os.Args[2]); err != nil {
		fmt.Fprintf(os.Stderr, "openapi: %v\n", err)
		os.Exit(1)
	}
}

func rewrite(file, reasonsFile string) error {
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	reasons, err := os.ReadFile(reasonsFile)
	if err != nil {
		return err
	}
	text, err = complete(text, meanings(string(reasons)))
	if err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	return os.WriteFile(file, text, 0o644)
}

// complete adds what the generator leaves out. The meanings of the reasons are those of their comments.
func complete(document []byte, meanings map[string]string) ([]byte, error) {
	var root yaml.Node
	if err := yaml.Unmarshal(document, &root); err != nil {
		return nil, err
	}
	top := root.Content[0]
	components, paths := at(top, "components"), at(top, "paths")
	if at(components, "schemas") == nil || paths == nil {
		return nil, fmt.Errorf("not an OpenAPI document with paths and schemas")
	}
	bindings, shared := bindings(), object{"Failed": object{"description": "The call failed.", "content": errorContent}}
	for i := 1; i < len(paths.Content); i += 2 {
		path, methods := paths.Content[i-1].Value, paths.Content[i].Content
		for j := 1; j < len(methods); j += 2 {
			verb := methods[j-1].Value
			call, ok := bindings[verb+" "+path]
			if !ok {
				return nil, fmt.Errorf("%s %s is no rpc's", verb, path)
			}
			if err := completeOperation(methods[j], call, meanings, shared); err != nil {
				return nil, fmt.Errorf("%s %s: %w", verb, path, err)
			}
		}
	}
	trimComments(&root)
	if err := describe(top, components, shared); err != nil {
		return nil, err
	}
	var out bytes.Buffer
	encoder := yaml.NewEncoder(&out)
	encoder.SetIndent(4)
	if err := encoder.Encode(&root); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}

// describe completes the document around the paths. Certificates as credentials need OpenAPI 3.1.
func describe(top, components *yaml.Node, responses object) error {
	for _, addition := range []struct {
		to    *yaml.Node
		key   string
		after string
		value any
	}{
		{top, "openapi", "", "3.1.0"},
		{at(top, "info"), "contact", "version", object{"name": "podlink: CONTRIBUTING.md, and SECURITY.md for vulnerabilities"}},
		{at(top, "info"), "license", "contact", object{"name": "Apache License 2.0", "identifier": "Apache-2.0"}},
		{top, "servers", "info", servers},
		{top, "security", "servers", security},
		{at(components, "schemas"), "Error", "", errorSchema()},
		{components, "responses", "schemas", responses},
		{components, "securitySchemes", "responses", securitySchemes},
	} {
		if err := put(addition.to, addition.key, addition.after, addition.value); err != nil {
			return err
		}
	}
	return nil
}

// binding is an rpc at one of its paths.
type binding struct {
	method protoreflect.MethodDescriptor
	// variant names an additional binding, by where it has the uid: ByQuery or ByBody. Empty: the main one.
	variant string
}

// bindings returns the rpcs by "get /v1/…".
func bindings() map[string]binding {
	found := make(map[string]binding)
	for _, method := range v1.Methods() {
		rule := proto.GetExtension(method.Options(), annotations.E_Http).(*annotations.HttpRule)
		found[route(rule)] = binding{method, ""}
		for _, additional := range rule.GetAdditionalBindings() {
			variant := "ByBody"
			if additional.GetGet() != "" {
				variant = "ByQuery"
			}
			found[route(additional)] = binding{method, variant}
		}
	}
	return found
}

// route returns a rule's method and path. The generator spells the path's fields as JSON does: the only one with an underscore is pod_id.
func route(rule *annotations.HttpRule) string {
	for verb, path := range map[string]string{
		"get": rule.GetGet(), "put": rule.GetPut(), "post": rule.GetPost(), "delete": rule.GetDelete(), "patch": rule.GetPatch(),
	} {
		if path != "" {
			return verb + " " + strings.ReplaceAll(path, "{pod_id}", "{podId}")
		}
	}
	return ""
}

// completeOperation gives an operation its id, its summary and the responses of its failures, which it shares with others.
func completeOperation(operation *yaml.Node, call binding, meanings map[string]string, shared object) error {
	description, responses := at(operation, "description"), at(operation, "responses")
	if description == nil || responses == nil {
		return fmt.Errorf("needs a description and responses")
	}
	id := fmt.Sprintf("%s_%s%s", call.method.Parent().Name(), call.method.Name(), call.variant)
	if err := put(operation, "operationId", "description", id); err != nil {
		return err
	}
	if !strings.Contains(description.Value, rightMark) {
		right := strings.ToLower(v1.RightOf(v1.Operation(call.method)).String())
		description.Value += rightMark + right + " at least."
	}
	summary := summaryOf(string(call.method.Name()), description.Value) + map[string]string{
		"": "", "ByQuery": " (uid in the query)", "ByBody": " (uid in the body)",
	}[call.variant]
	if err := put(operation, "summary", "tags", summary); err != nil {
		return err
	}
	if call.method.IsStreamingServer() {
		if err := describeStream(operation, at(responses, "200")); err != nil {
			return err
		}
	}
	for _, failure := range failuresOf(call.method, at(operation, "requestBody") != nil) {
		name, response := failure.response(meanings)
		shared[name] = response
		if err := put(responses, failure.code, "", object{"$ref": "#/components/responses/" + name}); err != nil {
			return err
		}
	}
	return put(responses, "default", "", object{"$ref": "#/components/responses/Failed"})
}

// describeStream says that the reply is a stream, which OpenAPI 3.1 has no word for: the schema is that of one event's data.
func describeStream(operation, reply *yaml.Node) error {
	content, parameters := at(reply, "content"), at(operation, "parameters")
	if content == nil || parameters == nil {
		return fmt.Errorf("needs parameters and a reply with content")
	}
	content.Content[0].Value = "text/event-stream"
	description := at(reply, "description")
	description.Value = "Server-sent events. The schema is that of the data of one event."
	has := func(name string) bool {
		return slices.ContainsFunc(parameters.Content, func(p *yaml.Node) bool { return at(p, "name").Value == name })
	}
	if !has("resumeToken") {
		return nil
	}
	description.Value = "Server-sent events. The schema is that of the data of one event; its id is the token."
	if has("Last-Event-ID") {
		return nil
	}
	var resume yaml.Node
	if err := resume.Encode(object{
		"name": "Last-Event-ID", "in": "header", "schema": object{"type": "string"},
		"description": "The id of the last event of an earlier watch, as browsers send it: the same as resumeToken.",
	}); err != nil {
		return err
	}
	parameters.Content = append(parameters.Content, &resume)
	return nil
}

// rightMark begins what is added to a description.
const rightMark = " With auth.mode required it needs the right "

// summaryOf makes a title of the first sentence of an rpc's comment: without the rpc's name, and without what explains it.
func summaryOf(name, comment string) string {
	sentence := strings.Join(strings.Fields(comment), " ")
	if end := explanation.FindStringIndex(strings.ReplaceAll(sentence, "; otherwise", "_ otherwise")); end != nil {
		sentence = sentence[:end[0]]
	}
	sentence = strings.TrimPrefix(strings.TrimPrefix(strings.TrimSuffix(sentence, "."), name+" "), "is ")
	return strings.ToUpper(sentence[:1]) + sentence[1:]
}

var explanation = regexp.MustCompile(`[.:;] `)

// trimComments removes the space that the generator leaves at the start of a comment's lines.
func trimComments(node *yaml.Node) {
	if node.Kind == yaml.ScalarNode {
		node.Value = strings.ReplaceAll(node.Value, "\n ", "\n")
	}
	for _, child := range node.Content {
		trimComments(child)
	}
}

// at returns the value of a key in a mapping, nil if absent.
func at(mapping *yaml.Node, key string) *yaml.Node {
	if mapping == nil {
		return nil
	}
	for i := 0; i+1 < len(mapping.Content); i += 2 {
		if mapping.Content[i].Value == key {
			return mapping.Content[i+1]
		}
	}
	return nil
}

// put sets a key in a mapping. A new one comes after the key named, or at the end.
func put(mapping *yaml.Node, key, after string, value any) error {
	if mapping == nil {
		return fmt.Errorf("no mapping for %s", key)
	}
	var node yaml.Node
	if err := node.Encode(value); err != nil {
		return err
	}
	if old := at(mapping, key); old != nil {
		*old = node
		return nil
	}
	place := len(mapping.Content)
	for i := 0; i+1 < len(mapping.Content); i += 2 {
		if mapping.Content[i].Value == after {
			place = i + 2
		}
	}
	keyNode := yaml.Node{Kind: yaml.ScalarNode, Value: key}
	if key[0] >= '0' && key[0] <= '9' {
		keyNode.Style = yaml.DoubleQuotedStyle // A response's code is a text.
	}
	mapping.Content = append(mapping.Content[:place:place], append([]*yaml.Node{&keyNode, &node}, mapping.Content[place:]...)...)
	return nil
}

type object = map[string]any
