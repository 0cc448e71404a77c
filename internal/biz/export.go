package biz

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
)

const (
	// maxExports bounds the exports of a process, each of which keeps a part of the links in memory.
	maxExports = 16
	// maxExported is how many links a message has at most.
	maxExported = 1000
	// exportTimeout is how long a step of an export may take.
	exportTimeout = 5 * time.Second
	// exportSilence is how long an export that finds no links sends nothing.
	exportSilence = time.Second
	// An export that begins again waits before, for a time that doubles from the first to the last: slots may move for long.
	firstExportPause, lastExportPause = time.Second, time.Minute
)

// ExportRequest says which links to export, and where the export goes on.
type ExportRequest struct {
	Namespace string
	Service   string // only links of this service; "": of all
	Resume    string // the token of a message of another export with the same namespace and service; "": from the beginning
}

func (r *ExportRequest) validate() error {
	err := validateName("namespace", r.Namespace)
	if err == nil && r.Service != "" {
		err = validateName("service", r.Service)
	}
	return err
}

// RestartReason is why an export begins again.
type RestartReason string

// RestartStoreChanged is the reason of an export whose store has changed so that the export may have missed links.
const RestartStoreChanged RestartReason = "STORE_CHANGED"

// ExportMessage is a message of an export.
type ExportMessage struct {
	Links   []Link
	Restart RestartReason // "": the export goes on after the message
	Token   string        // resumes the export after the message; "": from the beginning
	Done    bool          // the message is the last one
}

// Exports sends all links of a namespace to those who ask for them. They need no index.
type Exports struct {
	index IndexRepo
	size  int   // keys of a part
	pace  *pace // of all exports together
	open  atomic.Int32
}

// NewExports returns the exports of the repo. Together they go over rate keys a second.
func NewExports(index IndexRepo, rate int) *Exports {
	return &Exports{index: index, size: partSize(rate), pace: newPace(rate)}
}

// Export sends all links of the namespace until it has sent a message that is done, ctx ends, or send fails; the error is then ErrCanceled,
// or that of send. A link that stands during the whole export is in at least one message, also if the export was resumed by a token. When
// the store has changed so that a link may have been missed, a message says so, and the export begins again.
//
// A store that does not answer fails an export that has sent nothing at once. One that has is worth waiting for.
func (e *Exports) Export(ctx context.Context, r ExportRequest, send func(ExportMessage) error) error {
	if err := r.validate(); err != nil {
		return err
	}
	at, err := r.parseToken()
	if err != nil {
		return err
	}
	defer e.open.Add(-1)
	if e.open.Add(1) > maxExports {
		return &LimitError{Limit: fmt.Sprintf("the limit of %d exports of a podlink", maxExports)}
	}
	x := &export{Exports: e, request: r, at: at, send: send, sent: time.Now()}
	for wait := firstExportPause; ; wait = min(2*wait, lastExportPause) {
		err := x.walk(ctx)
		if !errors.Is(err, ErrScanMoved) {
			return err
		}
		x.at = ""
		if err := x.tell(ExportMessage{Restart: RestartStoreChanged}); err != nil {
			return err
		}
		if err := pause(ctx, wait); err != nil {
			return fmt.Errorf("%w: %w", ErrCanceled, err)
		}
	}
}

// export is an export on its way.
type export struct {
	*Exports

	request ExportRequest
	at      string // where the repo goes on
	send    func(ExportMessage) error
	begun   bool      // a message was sent
	sent    time.Time // when the last one was
}

// walk goes over the rest of the links.
func (x *export) walk(ctx context.Context) error {
	for {
		links, next, err := x.scan(ctx)
		if err == nil {
			err = x.tellAll(links, next)
		}
		if err != nil || next == "" {
			return err
		}
		x.at = next
		if err := x.pace.wait(ctx, x.size); err != nil {
			return fmt.Errorf("%w: %w", ErrCanceled, err)
		}
	}
}

// scan reads a part of the links.
func (x *export) scan(ctx context.Context) (links []Link, next string, err error) {
	step := func() (err error) {
		ctx, cancel := context.WithTimeout(ctx, exportTimeout)
		defer cancel()
		links, next, err = x.index.ScanLinks(ctx, x.request.Namespace, x.at, x.size)
		return err
	}
	if x.begun {
		err = persist(ctx, step)
	} else {
		err = step()
	}
	var invalid *InvalidArgumentError
	switch {
	case errors.As(err, &invalid):
		err = invalidExportToken() // The repo knows it by another name.
	case err != nil && !errors.Is(err, ErrScanMoved) && ctx.Err() != nil:
		err = fmt.Errorf("%w: %w", ErrCanceled, err)
	}
	if x.request.Service != "" {
		links = slices.DeleteFunc(links, func(link Link) bool { return link.Key.Service != x.request.Service })
	}
	return links, next, err
}

// tellAll sends the links of a part, in several messages if they are many. Only the last of them has the next part's token: whoever
// resumes after one before it gets the part again.
func (x *export) tellAll(links []Link, next string) error {
	for len(links) > maxExported {
		if err := x.tell(ExportMessage{Links: links[:maxExported], Token: x.token(x.at)}); err != nil {
			return err
		}
		links = links[maxExported:]
	}
	if len(links) == 0 && next != "" && time.Since(x.sent) < exportSilence {
		return nil
	}
	return x.tell(ExportMessage{Links: links, Token: x.token(next), Done: next == ""})
}

func (x *export) tell(m ExportMessage) error {
	err := x.send(m)
	x.begun, x.sent = true, time.Now()
	return err
}

// token returns the token of a place; "" for the beginning, and for the end. It belongs to the export of a namespace and a service: in
// another one it would leave links out.
func (x *export) token(at string) string {
	if at == "" {
		return ""
	}
	return x.request.sum() + "." + at
}

// sum returns what is the same in all tokens of the request's links.
func (r *ExportRequest) sum() string {
	sum := fnv.New64a()
	fmt.Fprintf(sum, "%s:%s", r.Namespace, r.Service)
	return strconv.FormatUint(sum.Sum64(), 36)
}

// parseToken returns where the repo goes on.
func (r *ExportRequest) parseToken() (at string, err error) {
	if r.Resume == "" {
		return "", nil
	}
	sum, at, found := strings.Cut(r.Resume, ".")
	if len(r.Resume) > maxPageTokenLen || !found || at == "" || sum != r.sum() {
		return "", invalidExportToken()
	}
	return at, nil
}

func invalidExportToken() error {
	return &InvalidArgumentError{"resume_token", "must be the token of a message of an export with the same namespace and service"}
}
