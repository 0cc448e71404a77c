package client

import (
	"sync/atomic"
	"time"

	kerrors "github.com/go-kratos/kratos/v2/errors"
)

// batchesRetry is how long a podlink without batches is not asked for one again: it may be upgraded.
const batchesRetry = time.Minute

// batchless remembers that podlink has no batches.
type batchless struct{ until atomic.Int64 } // Unix time in ns

// note is for a batch that podlink does not know.
func (b *batchless) note() { b.until.Store(time.Now().Add(batchesRetry).UnixNano()) }

// now reports whether podlink is taken for one that has no batches.
func (b *batchless) now() bool { return time.Now().UnixNano() < b.until.Load() }

// unimplemented reports whether podlink does not know the rpc: over gRPC, or over HTTP.
func unimplemented(err error) bool {
	cause := kerrors.FromError(err)
	return cause.Code == 501 || cause.Code == 405 || cause.Code == 404
}
