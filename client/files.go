package client

import (
	"context"

	"github.com/go-kratos/kratos/v2/log"

	"podlink/internal/certs"
)

// openFiles reads the TLS files, if there are any, and keeps them up to date until the returned function is called.
func (o *Options) openFiles() (stop func(), err error) {
	if !o.byFiles() {
		return func() {}, nil
	}
	reloader := certs.New(certs.Options{
		Interval: o.filesInterval, Log: log.NewHelper(log.With(log.GetLogger(), "module", "podlink/client")),
	})
	o.files, err = reloader.Client(certs.ClientOptions{
		CA:         certs.File{Key: "Options.CAFile", Path: o.CAFile},
		Cert:       certs.File{Key: "Options.CertFile", Path: o.CertFile},
		Key:        certs.File{Key: "Options.KeyFile", Path: o.KeyFile},
		ServerName: o.ServerName,
	})
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = reloader.Run(ctx) // It does not fail.
	}()
	return func() {
		cancel()
		<-done
	}, nil
}
