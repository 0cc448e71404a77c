package client

import (
	"fmt"
	"runtime/debug"
	"strings"
	"sync"
	"unicode"
	"unicode/utf8"

	"github.com/go-kratos/kratos/v2/log"
)

// maxStateLen is the number of bytes that a pod's state may have.
const maxStateLen = 1024

// latest is the last value of a function of the app. The function runs beside its callers, at most once at a time: one that
// blocks holds up no caller.
type latest[T any] struct {
	name string // as in AgentOptions
	call func() T
	// repair returns a value that podlink accepts, and what was wrong with the given one; empty: nothing.
	repair func(T) (T, string)
	log    *log.Helper

	mu      sync.Mutex
	value   T
	running chan struct{} // closed when the call that is running returns; nil: none is
	logged  map[string]bool
}

func newLatest[T any](name string, call func() T, initial T, repair func(T) (T, string), helper *log.Helper) *latest[T] {
	return &latest[T]{name: name, call: call, repair: repair, log: helper, value: initial, logged: make(map[string]bool)}
}

// refresh calls the function, unless an earlier call has not returned. The channel is closed when this one does; nil: there is
// none to wait for.
func (l *latest[T]) refresh() <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.running != nil {
		return nil
	}
	l.running = make(chan struct{})
	go l.run()
	return l.running
}

func (l *latest[T]) run() {
	defer func() { // Also if the function ends its goroutine.
		l.mu.Lock()
		defer l.mu.Unlock()
		close(l.running)
		l.running = nil
	}()
	value, returned := l.safely()
	if !returned {
		return
	}
	value, wrong := l.repair(value)
	if wrong != "" {
		l.logOnce(wrong, fmt.Sprintf("AgentOptions.%s returned a value that podlink refuses, which is changed in the report: %s", l.name, wrong))
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.value = value
}

func (l *latest[T]) safely() (value T, returned bool) {
	defer func() {
		if cause := recover(); cause != nil {
			l.logOnce("panic", fmt.Sprintf("AgentOptions.%s panicked, its last value is reported: %v\n%s", l.name, cause, debug.Stack()))
		}
	}()
	return l.call(), true
}

// get returns the last value. If the function was called for it, it waits until the function has returned or the time is over.
func (l *latest[T]) get(returned <-chan struct{}, over <-chan struct{}) T {
	if returned != nil {
		select {
		case <-returned:
		case <-over:
			l.logOnce("blocks", fmt.Sprintf("AgentOptions.%s does not return, its last value is reported until it does", l.name))
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.value
}

// logOnce logs a fault of that kind when it is the first.
func (l *latest[T]) logOnce(kind, line string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.logged[kind] {
		l.logged[kind] = true
		l.log.Error(line)
	}
}

// repairState makes a state that podlink accepts: 1 to 1024 bytes of UTF-8 without control characters.
func repairState(state string) (string, string) {
	wrong := ""
	if !utf8.ValidString(state) || strings.ContainsFunc(state, unicode.IsControl) {
		wrong = "it is not UTF-8 without control characters"
		state = strings.Map(func(r rune) rune {
			if unicode.IsControl(r) {
				return ' '
			}
			return r
		}, strings.ToValidUTF8(state, "�"))
	}
	if len(state) > maxStateLen {
		wrong = fmt.Sprintf("it is longer than %d bytes", maxStateLen)
		end := maxStateLen
		for !utf8.RuneStart(state[end]) {
			end--
		}
		state = state[:end]
	}
	if state == "" {
		return DefaultState, "it is empty"
	}
	return state, wrong
}

// repairLoad makes a load that podlink accepts.
func repairLoad(load int32) (int32, string) {
	if load < 0 {
		return 0, "it is negative"
	}
	return load, ""
}
