// Command openapi sets the default response of every operation in the generated openapi.yaml to podlink's error. The generator
// only supports google.rpc.Status, which podlink does not send.
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
	text, err = addErrors(text)
	if err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	return os.WriteFile(file, text, 0o644)
}

// addErrors adds the schema Error, and refers to it in every operation.
func addErrors(document []byte) ([]byte, error) {
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
	for i := 1; i < len(paths.Content); i += 2 {
		for j := 1; j < len(paths.Content[i].Content); j += 2 {
			if err := put(at(paths.Content[i].Content[j], "responses"), "default", errorResponse); err != nil {
				return nil, err
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
