package app

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/go-kratos/kratos/v2/log"

	"podlink/internal/audit"
	"podlink/internal/auth"
	"podlink/internal/conf"
	"podlink/internal/server"
)

// doors are what decides who may do what. With auth.mode off there are none: both fields are nil.
type doors struct {
	callers *auth.Authenticator
	policy  *auth.Policy
}

// openDoors reads the tokens, the keys and the policy. The error names the setting of the file that can't be used.
func openDoors(c *conf.Bootstrap, reloaded reloadFunc) (doors, error) {
	if c.GetAuth().GetMode() == conf.AuthOff {
		return doors{}, nil
	}
	policy, err := auth.NewPolicy(auth.PolicyOptions{Path: c.GetAuth().GetPolicyFile(), Reloaded: reloaded})
	if err != nil {
		return doors{}, err
	}
	options := auth.Options{
		TokensFile: c.GetAuth().GetTokensFile(), TrustDomain: c.GetAuth().GetMtls().GetTrustDomain(),
		Certificates: c.GetServer().TakesCertificates(), Reloaded: reloaded,
	}
	for _, issuer := range c.GetAuth().GetIssuers() {
		options.Issuers = append(options.Issuers, auth.Issuer{
			Name: issuer.GetName(), Issuer: issuer.GetIssuer(), Audiences: issuer.GetAudiences(), JWKSFile: issuer.GetJwksFile(),
			JWKSURL: issuer.GetJwksUrl(), CAFile: issuer.GetCaFile(), TokenFile: issuer.GetTokenFile(),
		})
	}
	callers, err := auth.New(options)
	if err != nil {
		return doors{}, err
	}
	return doors{callers, policy}, nil
}

// Check returns why podlink would not start with a valid configuration: the content of a file that it names. It opens no connection. The
// warnings are about what podlink starts with, and is no use.
func Check(c *conf.Bootstrap) (warnings []string, err error) {
	d, err := openDoors(c, nil)
	switch {
	case err != nil:
		return nil, fmt.Errorf("configuration: %w", err)
	case d.policy == nil:
		return nil, nil
	default:
		return d.policy.Unknown(d.callers), nil
	}
}

// newDoors is openDoors with the metrics, the log and the audit log of what is read again.
func newDoors(c *conf.Bootstrap, metrics *server.DoorMetrics, audited *audit.Log, logger log.Logger) (doors, error) {
	helper := log.NewHelper(log.With(logger, "module", "auth"))
	d, err := openDoors(c, reloads(helper, audited))
	if err != nil || d.callers == nil {
		return d, err
	}
	metrics.Watch(d.policy)
	for _, file := range d.callers.Reloads() {
		metrics.Watch(file)
	}
	for _, keys := range d.callers.KeySets() {
		metrics.WatchKeys(keys)
	}
	return d, nil
}

// reloadFunc hears of a file that was read again: err says why the new content is refused.
type reloadFunc = func(key string, err error)

// auditReloads writes reloads to the audit log.
func auditReloads(audited *audit.Log) reloadFunc {
	return func(key string, err error) {
		outcome := "applied"
		if err != nil {
			outcome = "refused"
		}
		audited.Happened(context.Background(), audit.Record{Operation: "reload", Outcome: outcome, Detail: key})
	}
}

// reloads writes reloads to the log and to the audit log.
func reloads(helper *log.Helper, audited *audit.Log) reloadFunc {
	record := auditReloads(audited)
	return func(key string, err error) {
		if err == nil {
			helper.Infof("%s: the new content is in force", key)
		} else {
			helper.Warnf("the new content can't be used, and the one before stays in force: %v", err)
		}
		record(key, err)
	}
}

// access is what the listeners ask of each call: nothing with auth.mode off.
func access(c *conf.Bootstrap, d doors, metrics *server.DoorMetrics) *server.Access {
	if d.callers == nil {
		return nil
	}
	return server.NewAccess(d.callers, d.policy, c.GetAuth().GetRate(), metrics)
}

// warnInterval is the time between two warnings that podlink is open to the network.
const warnInterval = time.Hour

// newBackground returns what runs beside the listeners.
func newBackground(c *conf.Bootstrap, d doors, fleet chores, metrics *server.DoorMetrics, logger log.Logger) *background {
	b := &background{run: fleet, stopped: make(chan struct{})}
	if d.callers != nil {
		b.run = append(b.run, d.callers.Run, d.policy.Run)
	}
	if exposed := c.Insecure(); len(exposed) > 0 {
		metrics.Insecure(true)
		warning := insecureWarning(exposed)
		b.run = append(b.run, func(ctx context.Context) error {
			return repeat(ctx, warnInterval, func() { log.NewHelper(logger).Warn(warning) })
		})
	}
	return b
}

func insecureWarning(exposed map[string]string) string {
	var list []string
	for _, path := range slices.Sorted(maps.Keys(exposed)) {
		list = append(list, path+" "+exposed[path])
	}
	return "auth.mode is off and podlink listens beyond loopback (" + strings.Join(list, ", ") + "): everyone who reaches it can move " +
		"every user; docs/security.md says how to change that"
}

// repeat calls do at once and at each interval until ctx ends.
func repeat(ctx context.Context, interval time.Duration, do func()) error {
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	for {
		do()
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
	}
}
