package redis

import (
	"bufio"
	"context"
	"crypto/rand"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// Monitor reads what a server executes, by MONITOR, which makes it slower.
type Monitor struct {
	server *Server
	mu     sync.Mutex
	count  int
	marks  map[string]chan struct{}
}

// Count starts to count the lines of MONITOR that contain one of the texts: `"evalsha" "<sha>` is a call of a script. It ends with the test.
func (s *Server) Count(tb testing.TB, texts ...string) *Monitor {
	tb.Helper()
	conn, err := net.Dial("tcp", s.Addr())
	if err != nil {
		tb.Fatal(err)
	}
	m := &Monitor{server: s, marks: make(map[string]chan struct{})}
	var reading sync.WaitGroup
	tb.Cleanup(func() {
		_ = conn.Close()
		reading.Wait()
	})
	if _, err := conn.Write([]byte("MONITOR\r\n")); err != nil {
		tb.Fatal(err)
	}
	reading.Go(func() {
		for lines := bufio.NewReader(conn); ; {
			line, err := lines.ReadString('\n')
			if err != nil {
				return
			}
			m.read(strings.TrimSpace(line), texts)
		}
	})
	m.Counted(tb)
	return m
}

func (m *Monitor) read(line string, texts []string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if slices.ContainsFunc(texts, func(text string) bool { return strings.Contains(line, text) }) {
		m.count++
	}
	if i := strings.Index(line, `"ECHO" "`); i >= 0 {
		mark := strings.TrimSuffix(line[i+len(`"ECHO" "`):], `"`)
		if read, ok := m.marks[mark]; ok {
			close(read)
			delete(m.marks, mark)
		}
	}
}

// Counted returns the count of what was executed before the call.
func (m *Monitor) Counted(tb testing.TB) int {
	tb.Helper()
	mark, read := rand.Text(), make(chan struct{})
	m.mu.Lock()
	m.marks[mark] = read
	m.mu.Unlock()
	client := m.server.Client(tb)
	defer client.Close()
	deadline := time.After(10 * time.Second)
	for { // MONITOR may begin after the first.
		if err := client.Do(context.Background(), "ECHO", mark).Err(); err != nil {
			tb.Fatal(err)
		}
		select {
		case <-read:
			m.mu.Lock()
			defer m.mu.Unlock()
			return m.count
		case <-time.After(50 * time.Millisecond):
		case <-deadline:
			tb.Fatal("MONITOR does not show what the server executes")
		}
	}
}
