package certs

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"encoding/pem"
	"errors"
	"fmt"
	"regexp"
	"sync/atomic"
	"time"

	"podlink/internal/file"
)

// maxBytes bounds a TLS file.
const maxBytes = 1 << 20

// File is a file that the configuration names.
type File struct {
	Key  string // path of the configuration key, as in server.http.tls.cert_file
	Path string
}

// material is what files contain: a certificate with its key and its intermediates, or a pool of CAs.
type material struct {
	pair                *tls.Certificate
	pool                *x509.CertPool
	notBefore, notAfter time.Time // of the leaf, or of the CA that expires last
}

// validAt returns an error if no peer would accept it at that time.
func (m *material) validAt(now time.Time) error {
	switch {
	case now.Before(m.notBefore):
		return fmt.Errorf("the certificate is not valid before %s", day(m.notBefore))
	case now.After(m.notAfter):
		return fmt.Errorf("the certificate expired at %s", day(m.notAfter))
	default:
		return nil
	}
}

func day(t time.Time) string { return t.UTC().Format(time.RFC3339) }

// Source is a certificate with its key, or a pool of CAs, and the files that it is read from.
type Source struct {
	files   []File
	parse   func(files []File, texts [][]byte) (*material, error)
	current atomic.Pointer[material]

	// Only Run touches these.
	used     [sha256.Size]byte // digest of the content in use
	failed   failure           // of the last read; zero if that was good
	reported failure           // the last one that was reported

	failing  atomic.Bool
	failures atomic.Uint64
}

// failure is a read that has failed: what was read, and why it can't be used.
type failure struct {
	digest [sha256.Size]byte
	text   string
}

func newPair(cert, key File) *Source { return &Source{files: []File{cert, key}, parse: parsePair} }

func newPool(ca File) *Source { return &Source{files: []File{ca}, parse: parsePool} }

// Key returns the path of the configuration key of the file, of the certificate's if there are two.
func (s *Source) Key() string { return s.files[0].Key }

// NotAfter returns when the certificate in use expires; of CAs, when the last of them does.
func (s *Source) NotAfter() time.Time { return s.current.Load().notAfter }

// Failing reports whether the files can't be used as they are now, so that the former ones are in use.
func (s *Source) Failing() bool { return s.failing.Load() }

// Failures returns how many changes of the files could not be used.
func (s *Source) Failures() uint64 { return s.failures.Load() }

// load reads the files for the first time.
func (s *Source) load() error {
	texts, digest, err := s.read()
	if err != nil {
		return err
	}
	m, err := s.parse(s.files, texts)
	if err != nil {
		return err
	}
	s.used = digest
	s.current.Store(m)
	return nil
}

// reload reads the files again. It reports whether they have changed, with an error if they can't be used as they are now. A
// failure is reported when it is seen a second time: the two files of a pair are not replaced at one moment.
func (s *Source) reload(now time.Time) (changed bool, err error) {
	texts, digest, err := s.read()
	if err == nil && digest == s.used {
		s.failed, s.reported = failure{}, failure{}
		return s.failing.Swap(false), nil
	}
	var m *material
	if err == nil {
		m, err = s.parse(s.files, texts)
	}
	if err == nil {
		err = m.validAt(now)
	}
	if err == nil {
		s.used, s.failed, s.reported = digest, failure{}, failure{}
		s.current.Store(m)
		s.failing.Store(false)
		return true, nil
	}
	before := s.failed
	s.failed = failure{digest, err.Error()}
	if s.failed != before || s.failed == s.reported {
		return false, nil
	}
	s.reported = s.failed
	s.failing.Store(true)
	s.failures.Add(1)
	return true, err
}

// read returns the content of the files, and its digest.
func (s *Source) read() (texts [][]byte, digest [sha256.Size]byte, err error) {
	hash := sha256.New()
	for _, f := range s.files {
		text, err := file.Read(f.Path, maxBytes)
		if err != nil {
			return nil, digest, fmt.Errorf("%s: %w", f.Key, err)
		}
		_ = binary.Write(hash, binary.BigEndian, int64(len(text))) // A hash does not fail.
		hash.Write(text)
		texts = append(texts, text)
	}
	return texts, [sha256.Size]byte(hash.Sum(nil)), nil
}

// quoted matches what errors quote from a certificate.
var quoted = regexp.MustCompile("[`\"][^\n]*[`\"]")

func parsePair(files []File, texts [][]byte) (*material, error) {
	if err := whole(texts[0]); err != nil {
		return nil, fmt.Errorf("%s: %w", files[0].Key, err)
	}
	pair, err := tls.X509KeyPair(texts[0], texts[1])
	if err != nil {
		return nil, fmt.Errorf("%s, %s: %s", files[0].Key, files[1].Key, quoted.ReplaceAllString(err.Error(), "…"))
	}
	return &material{pair: &pair, notBefore: pair.Leaf.NotBefore, notAfter: pair.Leaf.NotAfter}, nil
}

// parsePool takes a bundle as Go does: a CA that is malformed is left out.
func parsePool(files []File, texts [][]byte) (*material, error) {
	if err := whole(texts[0]); err != nil {
		return nil, fmt.Errorf("%s: %w", files[0].Key, err)
	}
	m := &material{pool: x509.NewCertPool()}
	for block, rest := pem.Decode(texts[0]); block != nil; block, rest = pem.Decode(rest) {
		if block.Type != "CERTIFICATE" || len(block.Headers) != 0 {
			continue
		}
		if ca, err := x509.ParseCertificate(block.Bytes); err == nil {
			m.pool.AddCert(ca)
			if ca.NotAfter.After(m.notAfter) {
				m.notAfter = ca.NotAfter
			}
		}
	}
	if m.notAfter.IsZero() {
		return nil, fmt.Errorf("%s: no PEM certificate in the file", files[0].Key)
	}
	return m, nil
}

// whole returns an error if the text ends within a certificate: Go would leave that one out, an intermediate or a CA.
func whole(text []byte) error {
	rest := text
	for block := (&pem.Block{}); block != nil; {
		block, rest = pem.Decode(rest)
	}
	if begun.Match(rest) {
		return errors.New("the file ends within a certificate, or has a malformed one")
	}
	return nil
}

// begun matches the first line of a PEM block.
var begun = regexp.MustCompile(`(?m)^-----BEGIN `)
