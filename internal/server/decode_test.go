package server

import (
	"encoding/json"
	"errors"
	"net/http"
	"strings"
	"testing"

	kerrors "github.com/go-kratos/kratos/v2/errors"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	v1 "podlink/api/podlink/v1"
	"podlink/internal/biz"
)

// decoded decodes a body as a request's.
func decoded(t *testing.T, body string, into proto.Message) error {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPut, "/", strings.NewReader(body))
	require.NoError(t, err)
	r.Header.Set("Content-Type", "application/json")
	return decodeBody(r, into.ProtoReflect())
}

// FuzzDecodeBody: a body is refused with the name of a field, or it is one JSON object without null that means the same when
// it is written again.
func FuzzDecodeBody(f *testing.F) {
	for _, body := range []string{
		`{"podId":1}`, `{"pod_id":0,"expectedEpoch":"5"}`, `{"expectedEpoch":null}`, `{"":1}`, `{"":null}`, `{" ":1}`,
		`{"podId":1,"podId":2}`, `{"uid":"null"}`, `{"podId":null,"podId":1}`, `[null]`, `null`, `{"uid":"\ud800"}`, `{`,
	} {
		f.Add(body)
	}
	f.Fuzz(func(t *testing.T, body string) {
		request := new(v1.SetLinkedPodRequest)
		err := decoded(t, body, request)
		if err != nil {
			var fault *biz.InvalidArgumentError
			if errors.As(err, &fault) {
				require.NotEmpty(t, fault.Field)
				return
			}
			require.NotEmpty(t, kerrors.FromError(err).Metadata["field"], err)
			return
		}
		if body == "" {
			return
		}
		var fields map[string]json.RawMessage
		require.NoError(t, json.Unmarshal([]byte(body), &fields))
		for name, value := range fields {
			require.NotEqual(t, "null", string(value), name)
			require.NotNil(t, fieldNamed(request.ProtoReflect().Descriptor(), name), name)
		}
		text, err := protojson.Marshal(request)
		require.NoError(t, err)
		again := new(v1.SetLinkedPodRequest)
		require.NoError(t, decoded(t, string(text), again))
		require.True(t, proto.Equal(request, again))
	})
}

// TestNullMessages: null is absence for a message, which Kratos' HTTP client sends so; a null inside one is refused.
func TestNullMessages(t *testing.T) {
	require.NoError(t, decoded(t, `{"link":null}`, new(v1.GetLinkedPodReply)))
	for body, field := range map[string]string{
		`{"link":{"epoch":null}}`: "link.epoch", `{"link":{"uid":"null","ttl_seconds":null}}`: "link.ttl_seconds",
	} {
		var fault *biz.InvalidArgumentError
		require.ErrorAs(t, decoded(t, body, new(v1.GetLinkedPodReply)), &fault)
		require.Equal(t, field, fault.Field)
	}
}

// TestWrongTypesAreNamed: the message says what is expected, for fields of every kind.
func TestWrongTypesAreNamed(t *testing.T) {
	for body, want := range map[string]string{
		`{"persistSeconds":"x"}`:    "persist_seconds must be an integer of 32 bits",
		`{"avoidPods":7}`:           "avoid_pods must be a list, each entry an integer of 32 bits",
		`{"selector":{"zone":1}}`:   "selector must be an object, each name once and each value a string in valid UTF-8",
		`{"selector":[]}`:           "selector must be an object, each name once and each value a string in valid UTF-8",
		`{"known":{"podId":"one"}}`: "known must be an object with the fields of Known",
	} {
		require.ErrorContains(t, decoded(t, body, new(v1.ComputeLinkedPodRequest)), want, body)
	}
}
