package lines

import (
	"fmt"
	"os"
	"sync"
	"syscall"
)

// File is a log file that can be opened again at its path, after logrotate has renamed it. It is safe for concurrent use.
type File struct {
	path string
	mode os.FileMode

	mu   sync.Mutex
	file *os.File
}

// OpenFile opens a file to append to, and creates it with that mode if it is missing.
func OpenFile(path string, mode os.FileMode) (*File, error) {
	file, err := open(path, mode)
	if err != nil {
		return nil, err
	}
	return &File{path: path, mode: mode, file: file}, nil
}

// open refuses everything but a regular file, without waiting: opening a pipe that is not read would not end.
func open(path string, mode os.FileMode) (*os.File, error) {
	//nolint:gosec // The path is from the configuration.
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND|os.O_CREATE|syscall.O_NONBLOCK, mode)
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
func (f *File) Write(lines []byte) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.file.Write(lines)
}

// Reopen opens the path again. On failure the log goes on in the file that is open.
func (f *File) Reopen() error {
	next, err := open(f.path, f.mode)
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
func (f *File) Close() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.file.Close()
}
