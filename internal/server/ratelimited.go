package server

import (
	"net/http"
	"strconv"
	"time"

	kerrors "github.com/go-kratos/kratos/v2/errors"

	v1 "podlink/api/podlink/v1"
)

// retryAfter is the key of an error's metadata with the milliseconds after which to try again.
const retryAfter = "retry_after_ms"

// rateLimited returns the error for a call that was refused because of a limit and may be repeated after wait.
func rateLimited(wait time.Duration, format string, args ...any) *kerrors.Error {
	milliseconds := max((wait+time.Millisecond-1)/time.Millisecond, 1) // Rounded up: earlier the call would be refused again.
	return v1.ErrorRateLimited(format, args...).WithMetadata(map[string]string{retryAfter: strconv.FormatInt(int64(milliseconds), 10)})
}

// setRetryAfter sets the header Retry-After, in whole seconds, of an error that says when to try again.
func setRetryAfter(header http.Header, metadata map[string]string) {
	milliseconds, err := strconv.ParseInt(metadata[retryAfter], 10, 64)
	if err != nil {
		return
	}
	wait := time.Duration(milliseconds) * time.Millisecond
	header.Set("Retry-After", strconv.FormatInt(int64((wait+time.Second-1)/time.Second), 10))
}
