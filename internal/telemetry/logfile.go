package telemetry

import (
	"fmt"
	"os"
	"sync"
	"syscall"
)

// logFileMode lets the group of the log's owner read it, as log shippers need it.
const logFileMode = 0o640

// LogFile is a log file that can be opened again at its path, after logrotate has renamed it. It is safe for concurrent use.
type LogFile struct {
	path string

	mu   sync.Mutex
	file *os.File
}

// OpenLogFile opens a file to append to, and creates it if it is missing.
func OpenLogFile(path string) (*LogFile, error) {
	file, err := openLog(path)
	if err != nil {
		return nil, err
	}
	return &LogFile{path: path, file: file}, nil
}

// openLog refuses everything but a regular file, without waiting: opening a pipe that is not read would not end.
func openLog(path string) (*os.File, error) {
	//nolint:gosec // The path is from the configuration.
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND|os.O_CREATE|syscall.O_NONBLOCK, logFileMode)
	if err != nil {
		return nil, err
	}
	if info, err := file.Stat(); err != nil || !info.Mode().IsRegular() {
		_ = file.Close() // Nothing was written.
		return nil, fmt.Errorf("%s is not a regular file", path)
	}
	return file, nil
}

// Write implements io.Writer.
func (f *LogFile) Write(lines []byte) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.file.Write(lines)
}

// Reopen opens the path again. On failure the log goes on in the file that is open.
func (f *LogFile) Reopen() error {
	next, err := openLog(f.path)
	if err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	before := f.file
	f.file = next
	return before.Close()
}

// Close implements io.Closer.
func (f *LogFile) Close() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.file.Close()
}
