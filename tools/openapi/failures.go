package main

import (
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"

	kerrors "github.com/go-kratos/kratos/v2/errors"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"

	v1 "podlink/api/podlink/v1"
)

// The credentials: one of them, both, or with auth.mode off none.
var (
	security = []object{
		{"bearer": []string{}}, {"certificate": []string{}}, {"bearer": []string{}, "certificate": []string{}}, {},
	}
	securitySchemes = object{
		"bearer": object{
			"type": "http", "scheme": "bearer",
			"description": "With auth.mode required: a JWT of an issuer in auth.issuers, or a static token of auth.tokens_file. docs/security.md.",
		},
		"certificate": object{
			"type":        "mutualTLS",
			"description": "With auth.mode required: a client certificate that server.http.tls.client_ca_file has signed. docs/security.md.",
		},
	}
)

var servers = []object{
	{"url": "http://127.0.0.1:8000", "description": "podlink on this machine, as make run starts it"},
	{
		"url": "https://{host}:{port}", "description": "podlink with server.http.tls",
		"variables": object{"host": object{"default": "podlink"}, "port": object{"default": "8000"}},
	},
}

// every is what every call may answer, reads what those that change nothing may, and changes what the others may.
var (
	every = []v1.ErrorReason{
		v1.ErrorReason_INVALID_ARGUMENT, v1.ErrorReason_UNAUTHENTICATED, v1.ErrorReason_PERMISSION_DENIED, v1.ErrorReason_RATE_LIMITED,
		v1.ErrorReason_INTERNAL, v1.ErrorReason_STORE_DATA_CORRUPT, v1.ErrorReason_STORE_UNAVAILABLE, v1.ErrorReason_NOT_READY,
	}
	reads   = []v1.ErrorReason{v1.ErrorReason_DEADLINE_EXCEEDED}
	changes = []v1.ErrorReason{v1.ErrorReason_OUTCOME_UNKNOWN, v1.ErrorReason_REPLICATION_UNCONFIRMED}
	// growing is what changes that need memory of the store may answer: all but removals.
	growing = []v1.ErrorReason{v1.ErrorReason_STORE_FULL}
	bodies  = []v1.ErrorReason{v1.ErrorReason_BODY_TOO_LARGE, v1.ErrorReason_UNSUPPORTED_MEDIA_TYPE}
)

// special is what single rpcs may answer besides. The items of a batch have problems in their place.
var special = map[protoreflect.Name][]v1.ErrorReason{
	"SetLinkedPod":         {v1.ErrorReason_EPOCH_MISMATCH, v1.ErrorReason_SUPERSEDED, v1.ErrorReason_LIMIT_EXCEEDED},
	"TrySetLinkedPod":      {v1.ErrorReason_LIMIT_EXCEEDED},
	"SetLinkedPodIfAbsent": {v1.ErrorReason_LIMIT_EXCEEDED},
	"ComputeLinkedPod":     {v1.ErrorReason_LIMIT_EXCEEDED, v1.ErrorReason_NO_AVAILABLE_POD},
	"RemoveLinkedPod":      {v1.ErrorReason_EPOCH_MISMATCH},
	"SetServiceState":      {v1.ErrorReason_SUPERSEDED, v1.ErrorReason_LIMIT_EXCEEDED},
	"GetServicePod":        {v1.ErrorReason_POD_NOT_FOUND},
	"CordonPod":            {v1.ErrorReason_POD_NOT_FOUND},
	"GetWorkloadState":     {v1.ErrorReason_WORKLOAD_NOT_FOUND},
	"ListNamespaces":       {v1.ErrorReason_INDEX_DISABLED},
	"ListServices":         {v1.ErrorReason_INDEX_DISABLED},
	"ListPodLinks":         {v1.ErrorReason_INDEX_DISABLED},
	"CountPodLinks":        {v1.ErrorReason_INDEX_DISABLED},
	"WatchLinks":           {v1.ErrorReason_LIMIT_EXCEEDED},
	"ExportLinks":          {v1.ErrorReason_LIMIT_EXCEEDED},
	"CreateJob":            {v1.ErrorReason_LIMIT_EXCEEDED, v1.ErrorReason_NO_AVAILABLE_POD, v1.ErrorReason_INDEX_DISABLED},
	"GetJob":               {v1.ErrorReason_JOB_NOT_FOUND},
	"CancelJob":            {v1.ErrorReason_JOB_NOT_FOUND},
	"WatchJob":             {v1.ErrorReason_JOB_NOT_FOUND},
}

// failure is a code with the reasons that an operation may have for it.
type failure struct {
	code    string
	reasons []string
}

// failuresOf returns what a call may answer besides success, sorted by code.
func failuresOf(method protoreflect.MethodDescriptor, body bool) []failure {
	reasons := slices.Concat(every, special[method.Name()])
	options := method.Options().(*descriptorpb.MethodOptions)
	if options.GetIdempotencyLevel() == descriptorpb.MethodOptions_NO_SIDE_EFFECTS {
		reasons = append(reasons, reads...)
	} else {
		reasons = append(reasons, changes...)
		if !strings.Contains(string(method.Name()), "Remove") {
			reasons = append(reasons, growing...)
		}
	}
	if body {
		reasons = append(reasons, bodies...)
	}
	byCode := make(map[string][]string)
	for _, reason := range slices.Sorted(slices.Values(reasons)) {
		code := codeOf(reason)
		byCode[code] = append(byCode[code], reason.String())
	}
	var failures []failure
	for _, code := range slices.Sorted(maps.Keys(byCode)) {
		failures = append(failures, failure{code, byCode[code]})
	}
	return failures
}

// codeOf returns the HTTP code of a reason, which is an option of its value.
func codeOf(reason v1.ErrorReason) string {
	options := reason.Descriptor().Values().ByNumber(reason.Number()).Options()
	return strconv.Itoa(int(proto.GetExtension(options, kerrors.E_Code).(int32)))
}

// response returns the response and its name among those that operations share.
func (f failure) response(meanings map[string]string) (name string, response object) {
	var lines []string
	for _, reason := range f.reasons {
		lines = append(lines, reason+": "+meanings[reason])
	}
	response = object{"description": strings.Join(lines, "\n\n"), "content": errorContent}
	if headers, ok := headersOf[f.code]; ok {
		response["headers"] = headers
	}
	return f.code + "_" + strings.Join(f.reasons, "_"), response
}

var (
	errorContent = object{"application/json": object{"schema": object{"$ref": "#/components/schemas/Error"}}}
	headersOf    = map[string]object{
		"401": {"WWW-Authenticate": object{"schema": object{"type": "string"}, "description": "Bearer."}},
		"429": {"Retry-After": object{
			"schema": object{"type": "integer"}, "description": "With RATE_LIMITED: after how many seconds to try again.",
		}},
	}
)

var commentedValue = regexp.MustCompile(`(?m)((?:^\s*//.*\n)+)\s*([A-Z_]+) = \d+`)

// meanings returns the comments of the values of an enum, by their names, from the text of the proto: Go's descriptors have none.
func meanings(text string) map[string]string {
	found := make(map[string]string)
	for _, value := range commentedValue.FindAllStringSubmatch(text, -1) {
		found[value[2]] = strings.Join(strings.Fields(strings.ReplaceAll(value[1], "//", "")), " ")
	}
	return found
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
				"description": "INVALID_ARGUMENT: field. EPOCH_MISMATCH, REPLICATION_UNCONFIRMED of a link: pod_id and epoch of the current link. " +
					"SUPERSEDED: generation, final. LIMIT_EXCEEDED: limit. PERMISSION_DENIED: operation, right. RATE_LIMITED: retry_after_ms.",
			},
		},
	}
}
