package jobs

import (
	"context"
)

func (j *run) verify(ctx context.Context) error {
	return reasonError("this podlink does not know this kind of job")
}
