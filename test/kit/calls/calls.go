// Package calls makes calls all the time, while a test does something that must not fail them.
package calls

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"
)

// Call is one call.
type Call func(ctx context.Context) error

// Repeat makes each of the calls in each interval, one after the other, until the returned function is called, which returns how many
// there were and the errors, with their times. A call has the timeout; the end of the test cuts none off.
func Repeat(interval, timeout time.Duration, calls ...Call) (stop func() (count int, failed []error)) {
	ctx, cancel := context.WithCancel(context.Background())
	var (
		callers sync.WaitGroup
		mu      sync.Mutex
		count   int
		failed  []error
	)
	for _, call := range calls {
		callers.Go(func() {
			ticker := time.NewTicker(interval)
			defer ticker.Stop()
			for ctx.Err() == nil {
				bounded, end := context.WithTimeout(context.Background(), timeout)
				err := call(bounded)
				end()
				mu.Lock()
				count++
				if err != nil {
					failed = append(failed, fmt.Errorf("%s: %w", time.Now().Format(time.TimeOnly), err))
				}
				mu.Unlock()
				<-ticker.C
			}
		})
	}
	return func() (int, []error) {
		cancel()
		callers.Wait()
		return count, failed
	}
}

// Get sends a GET with the Authorization header, unless that is empty. It fails if the answer is not 200, with the answer's body.
func Get(ctx context.Context, carrier http.RoundTripper, url, authorization string) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		return err
	}
	if authorization != "" {
		request.Header.Set("Authorization", authorization)
	}
	response, err := carrier.RoundTrip(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err == nil && response.StatusCode != http.StatusOK {
		err = fmt.Errorf("%d %s", response.StatusCode, text)
	}
	return err
}
