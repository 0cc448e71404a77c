package main

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"syscall"
	"time"
)

// startTimeout bounds how long a process may take to become ready.
const startTimeout = 20 * time.Second

// process is a started server.
type process struct {
	cmd    *exec.Cmd
	output bytes.Buffer
	exited chan struct{}
}

// start starts a command and waits until ready returns true.
func start(cmd *exec.Cmd, ready func() bool) (*process, error) {
	p := &process{cmd: cmd, exited: make(chan struct{})}
	cmd.Stdout, cmd.Stderr = &p.output, &p.output
	cmd.SysProcAttr = new(syscall.SysProcAttr)
	endWithParent(cmd.SysProcAttr)
	started := make(chan error, 1)
	go p.live(started)
	if err := <-started; err != nil {
		return nil, err
	}
	for begin := time.Now(); !ready(); {
		select {
		case <-p.exited:
			return nil, fmt.Errorf("%s exited:\n%s", cmd.Path, &p.output)
		case <-time.After(10 * time.Millisecond):
		}
		if time.Since(begin) > startTimeout {
			p.stop()
			return nil, fmt.Errorf("%s is not ready after %s:\n%s", cmd.Path, startTimeout, &p.output)
		}
	}
	return p, nil
}

// live starts the command and returns when it has exited. It keeps its thread until then: endWithParent ties the process to the
// thread that started it.
func (p *process) live(started chan<- error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	err := p.cmd.Start()
	started <- err
	if err == nil {
		_ = p.cmd.Wait() // Its status is meaningless: stop kills it.
		close(p.exited)
	}
}

func (p *process) stop() {
	_ = p.cmd.Process.Kill() // It may have exited already.
	<-p.exited
}

// startRedis starts a redis-server without persistence on a free port.
func startRedis(ctx context.Context) (p *process, addr string, err error) {
	addrs, err := freeAddrs(ctx, 1)
	if err != nil {
		return nil, "", err
	}
	host, port, err := net.SplitHostPort(addrs[0])
	if err != nil {
		return nil, "", err
	}
	cmd := exec.CommandContext(ctx, "redis-server", "--bind", host, "--port", port, "--save", "", "--appendonly", "no")
	cmd.Dir = os.TempDir()
	p, err = start(cmd, func() bool {
		conn, err := new(net.Dialer).DialContext(ctx, "tcp", addrs[0])
		if err == nil {
			_ = conn.Close()
		}
		return err == nil
	})
	return p, addrs[0], err
}

// startPodlink starts a revision's podlink, with its configuration and that Redis, and waits until it is ready.
func startPodlink(ctx context.Context, r revision, redis, prefix string) (p *process, grpcAddr, httpAddr string, err error) {
	addrs, err := freeAddrs(ctx, 3)
	if err != nil {
		return nil, "", "", err
	}
	cmd := exec.CommandContext(ctx, r.podlink, "-conf", r.conf)
	cmd.Dir = r.dir
	cmd.Env = append(os.Environ(), "PODLINK_SERVER_GRPC_ADDR="+addrs[0], "PODLINK_SERVER_HTTP_ADDR="+addrs[1],
		"PODLINK_SERVER_ADMIN_ADDR="+addrs[2], "PODLINK_DATA_REDIS_MODE=standalone", "PODLINK_DATA_REDIS_ADDRS="+redis,
		"PODLINK_DATA_REDIS_PREFIX="+prefix)
	p, err = start(cmd, func() bool {
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+addrs[2]+"/readyz", nil)
		if err != nil {
			return false
		}
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			return false
		}
		_ = response.Body.Close()
		return response.StatusCode == http.StatusOK
	})
	return p, addrs[0], addrs[1], err
}

// freeAddrs returns unused loopback addresses.
func freeAddrs(ctx context.Context, count int) ([]string, error) {
	var addrs []string
	for range count {
		listener, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		defer listener.Close() // Not before all are allocated, so that they differ.
		addrs = append(addrs, listener.Addr().String())
	}
	return addrs, nil
}

// cpuTime returns the CPU time of a process: the sum of its threads' schedstat, in nanoseconds. /proc/PID/stat counts hundredths
// of a second, which is too coarse for a slice.
func cpuTime(pid int) (time.Duration, error) {
	files, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", pid))
	if err != nil || len(files) == 0 {
		return 0, fmt.Errorf("no CPU time of process %d in /proc: %w", pid, err)
	}
	var total time.Duration
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			continue // The thread has just exited.
		}
		used, _, _ := bytes.Cut(text, []byte(" "))
		n, err := strconv.ParseInt(string(used), 10, 64)
		if err != nil {
			return 0, fmt.Errorf("%s: %w", file, err)
		}
		total += time.Duration(n)
	}
	return total, nil
}
