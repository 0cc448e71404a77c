package client

// The metadata of ErrWrongPod and ErrLinkUncertain, until the guard brings them along.
const (
	metadataNamespace = "namespace"
	metadataService   = "service"
	metadataUID       = "uid"
	metadataRefusedBy = "refused_by"
)
