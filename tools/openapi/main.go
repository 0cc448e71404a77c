// Command openapi completes the generated openapi.yaml. It sets the default response of every operation to podlink's error: the
// generator only supports google.rpc.Status, which podlink does not send. And it gives every operation an id of its own: the
// generator repeats that of the call for its additional bindings.
//
// Usage: `go run ./tools/openapi openapi.yaml`.
package main

import (
	"bytes"
	"fmt"
	"maps"
	"os"
	"slices"

	"go.yaml.in/yaml/v3"
	"google.golang.org/genproto/googleapis/api/annotations"
	"google.golang.org/protobuf/proto"

	v1 "podlink/api/podlink/v1"
)

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: openapi FILE")
		os.Exit(2)
	}
	if err := rewrite(os.Args[1]); err != nil {
		fmt.Fprintf(os.Stderr, "openapi: %v\n", err)
		os.Exit(1)
	}
}

func rewrite(file string) error {
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	text, err = complete(text)
	if err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	return os.WriteFile(file, text, 0o644)
}

// complete adds the schema Error, refers to it in every operation, and makes the ids of operations unique.
func complete(document []byte) ([]byte, error) {
	var root yaml.Node
	if err := yaml.Unmarshal(document, &root); err != nil {
		return nil, err
	}
	top := root.Content[0]
	schemas := at(at(top, "components"), "schemas")
	paths := at(top, "paths")
	if schemas == nil || paths == nil {
		return nil, fmt.Errorf("not an OpenAPI document with paths and schemas")
	}
	if err := put(schemas, "Error", errorSchema()); err != nil {
		return nil, err
	}
	ids := additionalIDs()
	for i := 1; i < len(paths.Content); i += 2 {
		path, methods := paths.Content[i-1].Value, paths.Content[i].Content
		for j := 1; j < len(methods); j += 2 {
			operation := methods[j]
			if err := put(at(operation, "responses"), "default", errorResponse); err != nil {
				return nil, err
			}
			if id, ok := ids[methods[j-1].Value+" "+path]; ok {
				if err := put(operation, "operationId", id); err != nil {
					return nil, err
				}
			}
		}
	}
	var out bytes.Buffer
	encoder := yaml.NewEncoder(&out)
	encoder.SetIndent(4)
	if err := encoder.Encode(&root); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}

// additionalIDs returns the operation ids of the additional bindings, by "get /v1/…". They have the uid in the query or in the
// body; the main binding of the call keeps the id that the generator gives both.
func additionalIDs() map[string]string {
	ids := make(map[string]string)
	for _, method := range v1.Methods() {
		rule := proto.GetExtension(method.Options(), annotations.E_Http).(*annotations.HttpRule)
		id := fmt.Sprintf("%s_%s", method.Parent().Name(), method.Name())
		for _, binding := range rule.GetAdditionalBindings() {
			if path := binding.GetGet(); path != "" {
				ids["get "+path] = id + "ByQuery"
			} else {
				ids["post "+binding.GetPost()] = id + "ByBody"
			}
		}
	}
	return ids
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

// put sets a key in a mapping.
func put(mapping *yaml.Node, key string, value any) error {
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
	mapping.Content = append(mapping.Content, &yaml.Node{Kind: yaml.ScalarNode, Value: key}, &node)
	return nil
}

type object = map[string]any

var errorResponse = object{
	"description": "The call failed.",
	"content":     object{"application/json": object{"schema": object{"$ref": "#/components/schemas/Error"}}},
}

func errorSchema() object {
	reasons := make([]string, 0, len(v1.ErrorReason_name))
	for _, number := range slices.Sorted(maps.Keys(v1.ErrorReason_name)) {
		reasons = append(reasons, v1.ErrorReason_name[number])
	}
	return object{
		"type":     "object",
		"required": []string{"code", "reason", "message", "metadata"},
		"properties": object{
			"code":    object{"type": "integer", "format": "int32", "description": "The HTTP status."},
			"reason":  object{"type": "string", "enum": reasons, "description": "Identifies the kind of error."},
			"message": object{"type": "string", "description": "For humans."},
			"metadata": object{
				"type": "object", "additionalProperties": object{"type": "string"},
				"description": "INVALID_ARGUMENT: field. EPOCH_MISMATCH, REPLICATION_UNCONFIRMED of a link: pod_id and epoch of the current link.",
			},
		},
	}
}
