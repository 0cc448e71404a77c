package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"
)

const (
	// tokenAge is how long a token is used without looking for a newer one.
	tokenAge = time.Second
	// maxTokenWait is how long a call that could send the last token waits for a newer one.
	maxTokenWait = 100 * time.Millisecond
	// maxTokenBytes is the size of the longest token that podlink takes.
	maxTokenBytes = 8 << 10
)

// tokens is the source of a client's bearer tokens. However many calls need the token, one at a time reads it.
type tokens struct {
	read    func(ctx context.Context) (string, error)
	timeout time.Duration   // of a reading
	open    context.Context //nolint:containedctx // Its end is the client's, not a call's.
	shut    func()

	mu      sync.Mutex
	token   string        // the last one; empty: none yet
	asOf    time.Time     // when the last reading began that has ended
	reading *tokenReading // in flight; nil: none
	inVain  time.Time     // when a refused token could not be replaced, or its successor was refused too
}

// tokenReading is one reading of the token, for all calls that need it.
type tokenReading struct {
	begun time.Time
	done  chan struct{}
	token string // these two when it is done
	err   error
}

func newTokens(read func(context.Context) (string, error), timeout time.Duration) *tokens {
	t := &tokens{read: read, timeout: timeout}
	t.open, t.shut = context.WithCancel(context.Background())
	return t
}

// get returns the token. While it can't be read, that is the last one.
func (t *tokens) get(ctx context.Context) (string, error) {
	t.mu.Lock()
	last := t.token
	if last != "" && time.Since(t.asOf) < tokenAge {
		t.mu.Unlock()
		return last, nil
	}
	reading := t.begin() //nolint:contextcheck // It is for all calls.
	t.mu.Unlock()
	return reading.wait(ctx, last)
}

// renew returns a token instead of one that podlink has refused. It returns false if there is no other one. While that is so, the
// token is not read for each refused call.
func (t *tokens) renew(ctx context.Context, refused string) (string, bool) {
	for asked := time.Now(); ; {
		t.mu.Lock()
		if t.token != refused { // Another call was faster.
			defer t.mu.Unlock()
			return t.token, true
		}
		if asked.Sub(t.inVain) < tokenAge {
			t.mu.Unlock()
			return "", false
		}
		reading := t.begin() //nolint:contextcheck // It is for all calls.
		t.mu.Unlock()
		token, err := reading.wait(ctx, "")
		switch {
		case err == nil && token != refused:
			return token, true
		case ctx.Err() != nil:
			return "", false
		case !reading.begun.Before(asked):
			t.failed()
			return "", false
		} // Else it may have been read before it was refused.
	}
}

// failed notes that podlink refuses whatever token there is.
func (t *tokens) failed() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.inVain = time.Now()
}

// expire makes the next caller read the token, if it is still that one.
func (t *tokens) expire(refused string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.token == refused {
		t.asOf = time.Time{}
	}
}

// begin returns the reading in flight, or begins one. The caller holds the lock.
func (t *tokens) begin() *tokenReading {
	if t.reading == nil {
		t.reading = &tokenReading{begun: time.Now(), done: make(chan struct{})}
		go t.carryOut(t.reading)
	}
	return t.reading
}

func (t *tokens) carryOut(reading *tokenReading) {
	ctx, cancel := context.WithTimeout(t.open, t.timeout)
	defer cancel()
	reading.token, reading.err = t.readOnce(ctx)
	t.mu.Lock()
	defer t.mu.Unlock()
	if reading.err == nil {
		t.token = reading.token
	}
	t.asOf, t.reading = reading.begun, nil
	close(reading.done)
}

func (t *tokens) readOnce(ctx context.Context) (token string, err error) {
	defer func() {
		if cause := recover(); cause != nil {
			err = fmt.Errorf("panic: %v", cause)
		}
	}()
	if token, err = t.read(ctx); err != nil {
		return "", err
	}
	token = strings.TrimSpace(token)
	return token, checkToken(token)
}

// wait returns what was read. If there is a last token, it is returned instead of an error, and of waiting for long.
func (r *tokenReading) wait(ctx context.Context, last string) (string, error) {
	var over <-chan time.Time
	if last != "" {
		timer := time.NewTimer(time.Until(r.begun.Add(maxTokenWait)))
		defer timer.Stop()
		over = timer.C
	}
	select {
	case <-r.done:
		if r.err != nil && last != "" {
			return last, nil
		}
		return r.token, r.err
	case <-over:
		return last, nil
	case <-ctx.Done():
		return "", ctx.Err()
	}
}

// checkToken refuses what can't be sent as a token. It doesn't show it.
func checkToken(token string) error {
	switch {
	case token == "":
		return errors.New("the token is empty")
	case len(token) > maxTokenBytes:
		return fmt.Errorf("the token is longer than %d bytes", maxTokenBytes)
	case strings.ContainsFunc(token, func(r rune) bool { return r <= ' ' || r >= 0x7f }):
		return errors.New("it is not one token: it has spaces, line breaks or characters that are not ASCII")
	}
	return nil
}

// tokenOf returns what reads the token of a file.
func tokenOf(path string) func(context.Context) (string, error) {
	return func(context.Context) (string, error) {
		file, err := os.Open(path) //nolint:gosec // The path is the client's configuration.
		if err != nil {
			return "", err
		}
		defer file.Close()
		content, err := io.ReadAll(io.LimitReader(file, maxTokenBytes+2)) // With the end of a line.
		return string(content), err
	}
}
