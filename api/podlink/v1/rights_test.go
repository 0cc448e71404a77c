package v1

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// leastRights is the least right of each rpc.
var leastRights = map[string]Right{
	OperationLinkServiceSetLinkedPod:          Right_BIND,
	OperationLinkServiceGetLinkedPod:          Right_READ,
	OperationLinkServiceComputeLinkedPod:      Right_PLACE,
	OperationLinkServiceTrySetLinkedPod:       Right_BIND,
	OperationLinkServiceSetLinkedPodIfAbsent:  Right_PLACE,
	OperationLinkServiceGetLinkedPodIfPersist: Right_READ,
	OperationLinkServiceBatchGetLinkedPod:     Right_READ,
	OperationLinkServiceRemoveLinkedPod:       Right_BIND,
	OperationLinkServiceRemoveLinkedPodWithId: Right_BIND,
	OperationLinkServiceListLinkedServices:    Right_READ,
	OperationLinkServiceBatchComputeLinkedPod: Right_PLACE,
	OperationLinkServiceBatchSetLinkedPod:     Right_PLACE,
	OperationLinkServiceBatchRemoveLinkedPod:  Right_BIND,
	OperationLinkServiceBatchVerifyLinkedPod:  Right_READ,

	OperationStateServiceSetServiceState:    Right_REPORT,
	OperationStateServiceGetServiceState:    Right_READ,
	OperationStateServiceGetServicePod:      Right_READ,
	OperationStateServiceCordonPod:          Right_OPERATE,
	OperationStateServiceRemoveServiceState: Right_OPERATE,

	OperationWorkloadServiceSetWorkloadState:      Right_OPERATE,
	OperationWorkloadServiceGetWorkloadState:      Right_READ,
	OperationWorkloadServiceBatchGetWorkloadState: Right_READ,
	OperationWorkloadServiceRemoveWorkloadState:   Right_OPERATE,

	OperationFleetServiceListNamespaces:     Right_READ,
	OperationFleetServiceListServices:       Right_READ,
	OperationFleetServiceListPodLinks:       Right_READ,
	OperationFleetServiceCountPodLinks:      Right_READ,
	FleetService_WatchLinks_FullMethodName:  Right_READ,
	FleetService_ExportLinks_FullMethodName: Right_OPERATE,
	OperationFleetServiceCreateJob:          Right_BIND, // Least: TestRights has what each kind of job needs.
	OperationFleetServiceListJobs:           Right_READ,
	OperationFleetServiceGetJob:             Right_READ,
	OperationFleetServiceCancelJob:          Right_OPERATE,
	FleetService_WatchJob_FullMethodName:    Right_READ,
}

// TestEveryMethodHasARight: an rpc without the option podlink.v1.right could be called by none.
func TestEveryMethodHasARight(t *testing.T) {
	methods := Methods()
	require.NotEmpty(t, methods)
	for _, method := range methods {
		operation := Operation(method)
		require.NotEqual(t, Right_RIGHT_UNSPECIFIED, RightOf(operation), "%s has no option (podlink.v1.right)", operation)
		require.Equal(t, leastRights[operation], RightOf(operation), operation)
	}
	require.Len(t, leastRights, len(methods))
	for _, other := range []string{"", "/grpc.health.v1.Health/Watch", "/podlink.v1.LinkService/NoSuchMethod"} {
		require.Equal(t, Right_RIGHT_UNSPECIFIED, RightOf(other))
	}
}
