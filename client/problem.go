package client

import (
	kerrors "github.com/go-kratos/kratos/v2/errors"
	"google.golang.org/protobuf/proto"

	v1 "podlink/api/podlink/v1"
)

// reasonCodes are the HTTP codes of podlink's reasons, as api/podlink/v1/error_reason.proto declares them.
var reasonCodes = declaredCodes()

func declaredCodes() map[string]int32 {
	values := v1.ErrorReason(0).Descriptor().Values()
	codes := make(map[string]int32, values.Len())
	for i := range values.Len() {
		code, _ := proto.GetExtension(values.Get(i).Options(), kerrors.E_Code).(int32)
		codes[string(values.Get(i).Name())] = code
	}
	return codes
}

// problemError is the error of an item of a batch: the one that a call for the item alone would return. It is nil if there is
// no problem.
func problemError(p *v1.Problem) error {
	if p == nil {
		return nil
	}
	code, ok := reasonCodes[p.GetReason()]
	if !ok { // A newer podlink's.
		code = kerrors.UnknownCode
	}
	return kerrors.New(int(code), p.GetReason(), p.GetMessage()).WithMetadata(p.GetMetadata())
}
