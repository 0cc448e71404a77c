package main

import (
	"context"
	"fmt"
	"io"
	stdlog "log"
	"maps"
	"os"
	"os/signal"
	"runtime"
	"slices"
	"syscall"
	"time"

	"github.com/go-kratos/kratos/v2/log"
	"github.com/go-kratos/kratos/v2/middleware/tracing"
	"google.golang.org/grpc/grpclog"

	"podlink/internal/app"
	"podlink/internal/audit"
	"podlink/internal/conf"
	"podlink/internal/telemetry"
	"podlink/internal/telemetry/lines"
	"podlink/internal/version"
)

// logFileMode lets the group of the log's owner read it, as log shippers need it.
const logFileMode = 0o640

// ballastBytes is the size of a heap ballast: allocated but never touched, so it takes no physical memory. podlink's live heap is
// tiny, and without ballast the garbage collector runs every few megabytes, which costs a tenth of a call's CPU time
// (docs/performance.md).
const ballastBytes = 16 << 20

// serve runs podlink until a signal stops it, and returns the exit code.
func serve(config *conf.Bootstrap) int {
	hangups := make(chan os.Signal, 1)
	signal.Notify(hangups, syscall.SIGHUP) // From here on it does not end the process.
	defer signal.Stop(hangups)

	if _, err := app.Check(config); err != nil {
		fmt.Fprintf(os.Stderr, "podlink: %v\n", err)
		return 2
	}
	var out io.Writer = os.Stderr
	var file *lines.File
	if path := config.GetLog().GetFile(); path != "" {
		var err error
		if file, err = lines.OpenFile(path, logFileMode); err != nil {
			fmt.Fprintf(os.Stderr, "podlink: configuration: log.file: %v\n", err)
			return 2
		}
		defer file.Close() // Each line was written at once.
		out = file
	}
	queue := telemetry.NewLogQueue(config.GetLog(), out)
	defer queue.Close() // Its error is that the log is not read, and there is no other place to say so.
	audited, closeAudit, err := openAudit(config, out)
	if err != nil {
		fmt.Fprintf(os.Stderr, "podlink: configuration: %v\n", err)
		return 2
	}
	defer closeAudit()

	level := telemetry.NewLogLevel(config.GetLog().GetLevel())
	logger := log.With(telemetry.NewLogger(config.GetLog(), level, queue), "trace_id", tracing.TraceID())
	setGlobalLoggers(logger)
	stopReopening := reopenLogs(hangups, logFiles(config, file, audited), log.NewHelper(logger))
	defer stopReopening()
	logStart(config, log.NewHelper(logger))
	if err := runApp(config, level, queue, audited, logger); err != nil {
		log.Errorf("podlink failed: %v", err)
		return 1
	}
	return 0
}

// auditFlushTimeout bounds the wait for the last lines of the audit log.
const auditFlushTimeout = 2 * time.Second

// openAudit opens the audit log, which goes to out if it has no file. With auth.mode off it needs one: nobody is known then, and
// lines about that would be noise. The returned function closes it.
func openAudit(config *conf.Bootstrap, out io.Writer) (*audit.Log, func(), error) {
	c := config.GetAudit()
	if config.GetAuth().GetMode() == conf.AuthOff && c.GetFile() == "" {
		return nil, func() {}, nil
	}
	audited, err := audit.New(audit.Options{
		File: c.GetFile(), Out: out, UIDKey: c.GetUidKey(),
		AllMutations: c.GetMutations() == conf.MutationsAll, PlainUIDs: c.GetUids() == conf.UIDsPlain,
	})
	return audited, func() {
		ctx, cancel := context.WithTimeout(context.Background(), auditFlushTimeout)
		defer cancel()
		if err := audited.Close(ctx); err != nil {
			log.Errorf("%v", err)
		}
	}, err
}

func runApp(
	config *conf.Bootstrap, level *telemetry.LogLevel, queue *telemetry.LogQueue, audited *audit.Log, logger log.Logger,
) error {
	podlink, cleanup, err := app.New(config, level, queue, audited, logger)
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
		"admin", server.GetAdmin().GetAddr(), "auth", config.GetAuth().GetMode(), "registry", config.GetRegistry().GetType())
}

// reopener is a log file that can be opened again, after logrotate has renamed it.
type reopener interface{ Reopen() error }

// logFiles returns the log files by the keys of their paths.
func logFiles(config *conf.Bootstrap, file *lines.File, audited *audit.Log) map[string]reopener {
	files := make(map[string]reopener)
	if file != nil {
		files["log.file"] = file
	}
	if config.GetAudit().GetFile() != "" {
		files["audit.file"] = audited
	}
	return files
}

// reopenLogs opens the log files again at each hangup, as logrotate expects, until the returned function is called.
func reopenLogs(hangups <-chan os.Signal, files map[string]reopener, helper *log.Helper) (stop func()) {
	stopping, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for {
			select {
			case <-stopping:
				return
			case <-hangups:
				reopenOnce(files, helper)
			}
		}
	}()
	return func() {
		close(stopping)
		<-stopped
	}
}

func reopenOnce(files map[string]reopener, helper *log.Helper) {
	if len(files) == 0 {
		helper.Info("SIGHUP has no effect: neither log.file nor audit.file is set, so there is no file to open again")
		return
	}
	for _, key := range slices.Sorted(maps.Keys(files)) {
		if err := files[key].Reopen(); err != nil {
			helper.Errorf("SIGHUP: the log goes on in the file that is open, because %s can't be opened again: %v", key, err)
			continue
		}
		helper.Infof("SIGHUP: %s was opened again", key)
	}
}
