package main

import (
	"fmt"
	"io"
	stdlog "log"
	"os"
	"os/signal"
	"runtime"
	"syscall"

	"github.com/go-kratos/kratos/v2/log"
	"github.com/go-kratos/kratos/v2/middleware/tracing"
	"google.golang.org/grpc/grpclog"

	"podlink/internal/app"
	"podlink/internal/conf"
	"podlink/internal/telemetry"
	"podlink/internal/version"
)

// ballastBytes is the size of a heap ballast: allocated but never touched, so it takes no physical memory. podlink's live heap is
// tiny, and without ballast the garbage collector runs every few megabytes, which costs a tenth of a call's CPU time
// (docs/performance.md).
const ballastBytes = 16 << 20

// serve runs podlink until a signal stops it, and returns the exit code.
func serve(config *conf.Bootstrap) int {
	hangups := make(chan os.Signal, 1)
	signal.Notify(hangups, syscall.SIGHUP) // From here on it does not end the process.
	defer signal.Stop(hangups)

	var out io.Writer = os.Stderr
	var file *telemetry.LogFile
	if path := config.GetLog().GetFile(); path != "" {
		var err error
		if file, err = telemetry.OpenLogFile(path); err != nil {
			fmt.Fprintf(os.Stderr, "podlink: configuration: log.file: %v\n", err)
			return 2
		}
		defer file.Close() // Each line was written at once.
		out = file
	}
	queue := telemetry.NewLogQueue(config.GetLog(), out)
	defer queue.Close() // Its error is that the log is not read, and there is no other place to say so.

	level := telemetry.NewLogLevel(config.GetLog().GetLevel())
	logger := log.With(telemetry.NewLogger(config.GetLog(), level, queue), "trace_id", tracing.TraceID())
	setGlobalLoggers(logger)
	stopReopening := reopenLog(hangups, file, log.NewHelper(logger))
	defer stopReopening()
	logStart(config, log.NewHelper(logger))
	if err := runApp(config, level, queue, logger); err != nil {
		log.Errorf("podlink failed: %v", err)
		return 1
	}
	return 0
}

func runApp(config *conf.Bootstrap, level *telemetry.LogLevel, queue *telemetry.LogQueue, logger log.Logger) error {
	podlink, cleanup, err := app.New(config, level, queue, logger)
	if err != nil {
		return err
	}
	defer cleanup()
	ballast := make([]byte, ballastBytes)
	defer runtime.KeepAlive(ballast)
	return podlink.Run()
}

// setGlobalLoggers sets the loggers of libraries that would write to standard error by themselves, and so block when it is not
// read.
func setGlobalLoggers(logger log.Logger) {
	log.SetLogger(logger)
	warnings := log.NewWriter(log.With(logger, "module", "library"), log.WithWriterLevel(log.LevelWarn))
	stdlog.SetOutput(warnings)
	stdlog.SetFlags(0)
	grpclog.SetLoggerV2(grpclog.NewLoggerV2(io.Discard, io.Discard, warnings))
}

// logStart logs what an operator asks first: what runs here, on which store, and where it listens.
func logStart(config *conf.Bootstrap, helper *log.Helper) {
	server := config.GetServer()
	helper.Infow(log.DefaultMessageKey, "podlink starts", "version", version.Version,
		"store", config.GetData().GetRedis().GetMode(), "http", server.GetHttp().GetAddr(), "grpc", server.GetGrpc().GetAddr(),
		"admin", server.GetAdmin().GetAddr(), "registry", config.GetRegistry().GetType())
}

// reopenLog opens the log file again at each hangup, as logrotate expects, until the returned function is called.
func reopenLog(hangups <-chan os.Signal, file *telemetry.LogFile, helper *log.Helper) (stop func()) {
	stopping, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for {
			select {
			case <-stopping:
				return
			case <-hangups:
				reopenOnce(file, helper)
			}
		}
	}()
	return func() {
		close(stopping)
		<-stopped
	}
}

func reopenOnce(file *telemetry.LogFile, helper *log.Helper) {
	if file == nil {
		helper.Info("SIGHUP has no effect: log.file is not set, so there is no file to open again")
		return
	}
	if err := file.Reopen(); err != nil {
		helper.Errorf("SIGHUP: the log goes on in the file that is open, because log.file can't be opened again: %v", err)
		return
	}
	helper.Info("SIGHUP: the log file was opened again")
}
