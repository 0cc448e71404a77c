package service

import (
	"context"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	v1 "podlink/api/podlink/v1"
	"podlink/internal/biz"
)

// domainErrors maps every domain error, by the name of its variable or type, to the API error that the contract demands.
var domainErrors = map[string]struct {
	err      error
	reason   v1.ErrorReason
	http     int32
	grpc     codes.Code
	metadata map[string]string
}{
	"ErrPodNotFound":      {biz.ErrPodNotFound, v1.ErrorReason_POD_NOT_FOUND, 404, codes.NotFound, nil},
	"ErrWorkloadNotFound": {biz.ErrWorkloadNotFound, v1.ErrorReason_WORKLOAD_NOT_FOUND, 404, codes.NotFound, nil},
	"ErrNoAvailablePod":   {biz.ErrNoAvailablePod, v1.ErrorReason_NO_AVAILABLE_POD, 503, codes.Unavailable, nil},
	"ErrStoreUnavailable": {biz.ErrStoreUnavailable, v1.ErrorReason_STORE_UNAVAILABLE, 503, codes.Unavailable, nil},
	"ErrStoreFull":        {biz.ErrStoreFull, v1.ErrorReason_STORE_FULL, 503, codes.Unavailable, nil},
	"ErrOutcomeUnknown":   {biz.ErrOutcomeUnknown, v1.ErrorReason_OUTCOME_UNKNOWN, 504, codes.DeadlineExceeded, nil},
	"ErrDeadlineExceeded": {biz.ErrDeadlineExceeded, v1.ErrorReason_DEADLINE_EXCEEDED, 504, codes.DeadlineExceeded, nil},
	"ErrCanceled":         {biz.ErrCanceled, v1.ErrorReason_CANCELED, 499, codes.Canceled, nil},
	"ErrStoreDataCorrupt": {biz.ErrStoreDataCorrupt, v1.ErrorReason_STORE_DATA_CORRUPT, 500, codes.Internal, nil},
	"ErrIndexDisabled":    {biz.ErrIndexDisabled, v1.ErrorReason_INDEX_DISABLED, 501, codes.Unimplemented, nil},
	"ErrJobNotFound":      {biz.ErrJobNotFound, v1.ErrorReason_JOB_NOT_FOUND, 404, codes.NotFound, nil},
	"ErrJobTaken":         {biz.ErrJobTaken, v1.ErrorReason_INTERNAL, 500, codes.Internal, nil},  // It reaches no caller.
	"ErrLeaseLost":        {biz.ErrLeaseLost, v1.ErrorReason_INTERNAL, 500, codes.Internal, nil}, // It reaches no caller.
	"ErrScanMoved":        {biz.ErrScanMoved, v1.ErrorReason_INTERNAL, 500, codes.Internal, nil}, // It reaches no caller.
	"InvalidArgumentError": {
		&biz.InvalidArgumentError{Field: "pod_id", Detail: "is required"},
		v1.ErrorReason_INVALID_ARGUMENT, 400, codes.InvalidArgument, map[string]string{"field": "pod_id"},
	},
	"EpochMismatchError": {
		&biz.EpochMismatchError{Current: biz.Link{Pod: 7, TTL: biz.Forever, Epoch: 1 << 60, Claim: 1<<52 - 1}},
		v1.ErrorReason_EPOCH_MISMATCH, 409, codes.Aborted,
		map[string]string{"pod_id": "7", "epoch": "1152921504606846976", "claim": "4503599627370495"},
	},
	"EpochMismatchError without a link": {
		&biz.EpochMismatchError{Current: biz.NoLink(biz.LinkKey{})},
		v1.ErrorReason_EPOCH_MISMATCH, 409, codes.Aborted, map[string]string{"pod_id": "-1", "epoch": "0", "claim": "0"},
	},
	"SupersededError": {
		&biz.SupersededError{Generation: 1<<52 - 1},
		v1.ErrorReason_SUPERSEDED, 409, codes.Aborted, map[string]string{"generation": "4503599627370495", "final": "false"},
	},
	"SupersededError of a process that was replaced for good": {
		&biz.SupersededError{Generation: 8, Final: true},
		v1.ErrorReason_SUPERSEDED, 409, codes.Aborted, map[string]string{"generation": "8", "final": "true"},
	},
	"LimitError": {
		&biz.LimitError{Limit: "limits.max_services"},
		v1.ErrorReason_LIMIT_EXCEEDED, 429, codes.ResourceExhausted, map[string]string{"limit": "limits.max_services"},
	},
	"UnconfirmedError": {
		&biz.UnconfirmedError{Link: &biz.Link{Pod: 7, TTL: biz.Forever, Epoch: 5}, Cause: errDriver},
		v1.ErrorReason_REPLICATION_UNCONFIRMED, 504, codes.DeadlineExceeded, map[string]string{"pod_id": "7", "epoch": "5"},
	},
	"UnconfirmedError of a report": {
		&biz.UnconfirmedError{Cause: errDriver}, v1.ErrorReason_REPLICATION_UNCONFIRMED, 504, codes.DeadlineExceeded, nil,
	},
}

// errDriver is an error text with details that must not leak.
var errDriver = errors.New("dial tcp 10.1.2.3:6379: EVALSHA podlink:link:ns:u1: /etc/podlink/secret")

func TestPublicError(t *testing.T) {
	for name, row := range domainErrors {
		for _, err := range []error{
			row.err, fmt.Errorf("%w: %w", row.err, errDriver), fmt.Errorf("script: %w", errors.Join(errDriver, row.err)),
		} {
			got := PublicError(err)
			require.Equal(t, row.reason.String(), got.Reason, name)
			require.Equal(t, row.http, got.Code, name)
			require.Equal(t, row.grpc, status.Code(got), name)
			require.Len(t, got.Metadata, len(row.metadata), name)
			for key, value := range row.metadata {
				require.Equal(t, value, got.Metadata[key], name)
			}
			require.NotEmpty(t, got.Message, name)
			require.NotContains(t, got.Message, "10.1.2.3", name)
			require.NotContains(t, got.GRPCStatus().String(), "secret", name)
		}
	}
}

// TestPublicErrorOfUnknownErrors: an unexpected error gets one fixed text and keeps its cause for the log.
func TestPublicErrorOfUnknownErrors(t *testing.T) {
	for _, err := range []error{
		errDriver, context.DeadlineExceeded, context.Canceled, status.Error(codes.NotFound, errDriver.Error()),
		fmt.Errorf("wrapped: %w", errDriver),
	} {
		got := PublicError(err)
		require.Equal(t, v1.ErrorReason_INTERNAL.String(), got.Reason)
		require.EqualValues(t, 500, got.Code)
		require.Equal(t, codes.Internal, status.Code(got))
		require.Equal(t, Internal(nil).Message, got.Message)
		require.Empty(t, got.Metadata)
		require.ErrorIs(t, got, err)
	}
}

// TestPublicErrorIsIdempotent: an error that is an API error already, as for a wrong Content-Type, is returned unchanged.
func TestPublicErrorIsIdempotent(t *testing.T) {
	want := v1.ErrorUnsupportedMediaType("text")
	require.Same(t, want, PublicError(want))
	require.Same(t, want, PublicError(fmt.Errorf("wrapped: %w", want)))
}

// TestEveryDomainError fails for a domain error that is missing in the table above.
func TestEveryDomainError(t *testing.T) {
	file, err := parser.ParseFile(token.NewFileSet(), "../biz/errors.go", nil, 0)
	require.NoError(t, err)
	found := 0
	ast.Inspect(file, func(node ast.Node) bool {
		var name string
		switch n := node.(type) {
		case *ast.FuncDecl:
			return false
		case *ast.ValueSpec:
			name = n.Names[0].Name
		case *ast.TypeSpec:
			name = n.Name.Name
		default:
			return true
		}
		require.Contains(t, domainErrors, name)
		found++
		return false
	})
	// EpochMismatchError, SupersededError and UnconfirmedError have two rows.
	require.Equal(t, found+3, len(domainErrors))
}

// TestReasonsOnce: every reason has one text.
func TestReasonsOnce(t *testing.T) {
	seen := make(map[string]bool)
	for _, row := range reasons {
		reason := row.newf("").Reason
		require.False(t, seen[reason], reason)
		seen[reason] = true
	}
}

// TestEnums: the enums of the domain and of the API have the same values and names.
func TestEnums(t *testing.T) {
	routings := map[biz.Routing]string{biz.Ready: "READY", biz.DenyNew: "DENY_NEW", biz.Shutdown: "SHUTDOWN"}
	require.Len(t, v1.Routing_name, len(routings))
	for routing, name := range routings {
		require.Equal(t, name, v1.Routing(routing).String())
		require.Equal(t, name, podMessage(&biz.Pod{Report: biz.Report{Routing: routing}}).GetRouting().String())
	}
	names := map[biz.Outcome]string{biz.Created: "CREATED", biz.Existing: "EXISTING", biz.Relinked: "RELINKED"}
	require.Len(t, outcomes, len(names))
	require.Len(t, v1.ComputeLinkedPodReply_Outcome_name, len(names)+1)
	for outcome, name := range names {
		require.Equal(t, name, outcomes[outcome].String())
	}
	require.True(t, strings.HasSuffix(v1.ComputeLinkedPodReply_Outcome_name[0], "_UNSPECIFIED"))
	kinds := map[biz.ChangeKind]string{
		biz.Linked: "LINKED", biz.Moved: "MOVED", biz.Persisted: "PERSISTED", biz.Expiring: "EXPIRING", biz.Removed: "REMOVED",
		biz.Uncertain: "UNCERTAIN",
	}
	require.Len(t, changeKinds, len(kinds))
	require.Len(t, v1.LinkChange_Kind_name, len(kinds)+1)
	for kind, name := range kinds {
		require.Equal(t, name, changeKinds[kind].String())
	}
	require.Len(t, v1.WatchLinksReply_Resync_name, len(resyncs)+1)
	for reason, resync := range resyncs {
		require.Equal(t, string(reason), resync.String())
	}
}
