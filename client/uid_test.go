package client

import (
	"context"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/go-kratos/kratos/v2/middleware"
	khttp "github.com/go-kratos/kratos/v2/transport/http"
	"github.com/go-kratos/kratos/v2/transport/http/binding"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	v1 "podlink/api/podlink/v1"
)

// sentOverHTTP is the user that Field finds in a call of a Kratos client over HTTP, and the URL that it goes to. Like generated
// code it puts into the URL what the template names, and without a body the rest.
func sentOverHTTP(t *testing.T, field, template, operation string, request, body proto.Message) (uid string, sent *url.URL) {
	t.Helper()
	c, err := khttp.NewClient(t.Context(), khttp.WithEndpoint("127.0.0.1:1"), khttp.WithMiddleware(
		func(middleware.Handler) middleware.Handler {
			return func(ctx context.Context, in any) (any, error) {
				uid = Field(field)(ctx, in)
				return nil, nil
			}
		}))
	require.NoError(t, err)
	defer c.Close()
	path := binding.EncodeURL(template, request, body == nil)
	var in any
	if body != nil {
		in = body
	}
	require.NoError(t, c.Invoke(t.Context(), http.MethodPost, path, in, nil, khttp.PathTemplate(template), khttp.Operation(operation)))
	sent, err = url.Parse(path)
	require.NoError(t, err)
	return uid, sent
}

// TestFieldAgrees: over HTTP a caller finds the user that the handler of the pod gets, and its guard.
func TestFieldAgrees(t *testing.T) {
	const (
		set     = v1.OperationWorkloadServiceSetWorkloadState
		unknown = "/other.v1.Other/Do"
	)
	request := func(uid string) *v1.SetWorkloadStateRequest {
		return &v1.SetWorkloadStateRequest{Namespace: "n", Service: uid, State: "text"}
	}
	for name, row := range map[string]struct {
		template, operation string
		request, body       proto.Message
		want                string
	}{
		"in the body":                  {"/v1/set", set, request("u"), request("u"), "u"},
		"in the path and the body":     {"/v1/{service}/set", set, request("u"), request("u"), "u"},
		"the path is decoded":          {"/v1/{service}/set", set, request("a%2Fb"), request("a%2Fb"), "a/b"},
		"the path ends at a mark":      {"/v1/{service}", set, request("u?x=y"), request("u?x=y"), "u"},
		"with a verb":                  {"/v1/{service}:set", set, request("user:42"), request("user:42"), "user:42"},
		"with text before":             {"/v1/u-{service}/set", set, request("x"), request("x"), "x"},
		"in the query":                 {"/v1/get", set, request("u"), nil, "u"},
		"another message's field":      {"/v1/set", set, request("u"), &v1.GetWorkloadStateRequest{Service: "v"}, ""},
		"a field of the body, a path":  {"/v1/{service}", set, request("u"), &v1.GetWorkloadStateRequest{Service: "v"}, "u"},
		"an unknown operation, body":   {"/v1/set", unknown, request("u"), request("u"), "u"},
		"an unknown operation, query":  {"/v1/get", unknown, request("u"), nil, "u"},
		"an operation without a field": {"/v1/get", v1.OperationLinkServiceGetLinkedPod + "x", request(""), nil, ""},
	} {
		t.Run(name, func(t *testing.T) {
			uid, sent := sentOverHTTP(t, "service", row.template, row.operation, row.request, row.body)
			require.Equal(t, row.want, uid, sent)
		})
	}
}

// TestCheckUID: what podlink would refuse is not sent to it.
func TestCheckUID(t *testing.T) {
	for uid, right := range map[string]bool{
		"u": true, "user:42": true, "a/b": true, "{x}": true, "\U0001F600": true, strings.Repeat("x", 256): true,
		"": false, strings.Repeat("x", 257): false, "\xff": false, "a\x00b": false, "a\nb": false, "\u0085": false,
	} {
		err := checkUID(uid)
		if right {
			require.NoError(t, err, uid)
			continue
		}
		require.ErrorIs(t, err, ErrInvalidArgument, uid)
	}
}

func TestUIDMismatchSaysWhere(t *testing.T) {
	require.ErrorIs(t, uidMismatch("/chat/Say", ""), ErrUIDMismatch)
	require.ErrorContains(t, uidMismatch("/chat/Say", ""), "AgentOptions.Match finds none")
	require.ErrorContains(t, uidMismatch("/chat/Say", "bob"), "names two users")
}
