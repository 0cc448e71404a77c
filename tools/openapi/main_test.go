package main

import (
	"os"
	"testing"

	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v3"
)

func TestEveryOperationHasTheErrorSchema(t *testing.T) {
	text, err := os.ReadFile("../../openapi.yaml")
	require.NoError(t, err)
	var document struct {
		Paths map[string]map[string]struct {
			OperationID string `yaml:"operationId"`
			Responses   map[string]struct {
				Content map[string]struct {
					Schema struct {
						Ref string `yaml:"$ref"`
					}
				}
			}
		}
		Components struct{ Schemas map[string]any }
	}
	require.NoError(t, yaml.Unmarshal(text, &document))

	operations, ids := 0, make(map[string]string)
	for path, methods := range document.Paths {
		for method, operation := range methods {
			operations++
			ref := operation.Responses["default"].Content["application/json"].Schema.Ref
			require.Equal(t, "#/components/schemas/Error", ref, "%s %s", method, path)
			require.Empty(t, ids[operation.OperationID], "%s is repeated", operation.OperationID)
			ids[operation.OperationID] = method + " " + path
		}
	}
	require.Equal(t, 23+7, operations, "23 RPCs, 7 of them with an additional binding")
	require.Equal(t, "get /v1/namespaces/{namespace}/links/{uid}/services/{service}", ids["LinkService_GetLinkedPod"])
	require.Equal(t, "get /v1/namespaces/{namespace}/link", ids["LinkService_GetLinkedPodByQuery"])
	require.Equal(t, "post /v1/namespaces/{namespace}/links:set", ids["LinkService_SetLinkedPodByBody"])
	require.Contains(t, document.Components.Schemas, "Error")
	require.NotContains(t, document.Components.Schemas, "Status", "podlink does not send google.rpc.Status")
}

func TestCompleteIsStable(t *testing.T) {
	text, err := os.ReadFile("../../openapi.yaml")
	require.NoError(t, err)
	again, err := complete(text)
	require.NoError(t, err)
	require.Equal(t, string(text), string(again))
}

func TestCompleteRejectsOtherDocuments(t *testing.T) {
	for name, text := range map[string]string{
		"not YAML":          ":\n\t-",
		"without paths":     "components: {schemas: {A: {}}}",
		"without schemas":   "paths: {}",
		"without responses": "components: {schemas: {A: {}}}\npaths: {/a: {get: {tags: [x]}}}",
	} {
		t.Run(name, func(t *testing.T) {
			_, err := complete([]byte(text))
			require.Error(t, err)
		})
	}
}
