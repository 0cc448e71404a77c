package auth

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// The limits of a policy. They are far above what is of use, and bound what a call's decision can cost.
const (
	largestPolicy  = 1 << 20 // bytes
	mostRules      = 1000
	mostPatterns   = 256 // in a list
	longestWho     = 512
	longestPattern = longestName + 1
	fastestRate    = 1_000_000
)

// ruleText is a rule as it is in the file.
type ruleText struct {
	Who        []string `yaml:"who"`
	Role       string   `yaml:"role"`
	Namespaces []string `yaml:"namespaces"`
	Services   []string `yaml:"services"`
	PodName    string   `yaml:"pod_name"`
	Persistent *bool    `yaml:"persistent"`
	Force      *bool    `yaml:"force"`
	Rate       *float64 `yaml:"rate"`
}

// parsedRule is a rule with the patterns of its who.
type parsedRule struct {
	rule
	who   patterns
	texts []string // of who
}

// parsePolicy returns the rules of a file. Errors have no text of the file: its path may be that of a secret.
func parsePolicy(text []byte) ([]parsedRule, error) {
	var file struct {
		Rules []ruleText `yaml:"rules"`
	}
	decoder := yaml.NewDecoder(bytes.NewReader(text))
	decoder.KnownFields(true)
	if err := decoder.Decode(&file); err != nil && !errors.Is(err, io.EOF) {
		return nil, withoutContent(err)
	}
	if err := decoder.Decode(new(yaml.Node)); !errors.Is(err, io.EOF) {
		return nil, errors.New("must be one YAML document")
	}
	var document yaml.Node
	_ = yaml.Unmarshal(text, &document) // It was decoded already, where an empty key and an absent one are the same.
	switch empty := emptyRuleKey(&document); {
	case empty != 0: // It would count as absent, and "force:" without false gives more than its reader thinks.
		return nil, fmt.Errorf("line %d has a key without a value", empty)
	case len(file.Rules) == 0:
		return nil, errors.New("must have rules: without one no call is allowed")
	case len(file.Rules) > mostRules:
		return nil, fmt.Errorf("must have at most %d rules", mostRules)
	}
	rules := make([]parsedRule, len(file.Rules))
	for i := range file.Rules {
		var err error
		if rules[i], err = file.Rules[i].parse(); err != nil {
			return nil, fmt.Errorf("rules[%d].%w", i, err)
		}
		rules[i].name = fmt.Sprintf("rules[%d]", i)
	}
	return rules, nil
}

// emptyRuleKey returns the line of the first key of a rule without a value, 0 if there is none.
func emptyRuleKey(n *yaml.Node) int {
	for i, child := range n.Content {
		if n.Kind == yaml.MappingNode && i%2 == 1 && child.ShortTag() == "!!null" && n.Content[i-1].Value != "rules" {
			return n.Content[i-1].Line
		}
		if line := emptyRuleKey(child); line != 0 {
			return line
		}
	}
	return 0
}

// ruleKeys names the keys of ruleText.
const ruleKeys = "who, role, namespaces, services, pod_name, persistent, force and rate"

var lineNumber = regexp.MustCompile(`line \d+`)

// withoutContent returns the YAML parser's error without what it quotes from the file.
func withoutContent(err error) error {
	text := err.Error()
	line := lineNumber.FindString(text)
	where := line + " or after it" // The parser names the line where what it can't read began.
	if line == "" {
		line, where = "the file", "the file"
	}
	switch {
	case strings.Contains(text, "not found in type"):
		return errors.New(line + " has an unknown key; the file has the key rules, and a rule " + ruleKeys)
	case strings.Contains(text, "already defined"):
		return errors.New(line + " has a key twice")
	case strings.Contains(text, "cannot unmarshal"):
		return errors.New(line + " has a value of the wrong type")
	case strings.Contains(text, "alphabetic or numeric"):
		return errors.New(line + ` has a * without quotes; write "*"`)
	default:
		return errors.New(where + " is not YAML")
	}
}

func (t *ruleText) parse() (parsedRule, error) {
	role, known := roles[t.Role]
	if !known {
		return parsedRule{}, errors.New("role must be reader, caller, binder, pod, operator or admin")
	}
	r := parsedRule{rule: rule{rights: role.rights, pod: role.pod, admin: role.admin, persistent: true}, texts: t.Who}
	for _, list := range []struct {
		key   string
		texts []string
		to    *patterns
		check func(string) error
	}{
		{"who", t.Who, &r.who, checkWho},
		{"namespaces", t.Namespaces, &r.namespaces, checkName},
		{"services", t.Services, &r.services, checkName},
	} {
		if err := list.to.parse(list.texts, list.check); err != nil {
			return parsedRule{}, fmt.Errorf("%s%w", list.key, err)
		}
	}
	return r, firstError(t.parsePod(&r), t.parsePersistent(&r), t.parseForce(&r), t.parseRate(&r))
}

func firstError(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

const ordinalMark = "{ordinal}"

// ofCertificate reports whether the pattern is for the names of certificates.
func ofCertificate(who string) bool {
	return strings.HasPrefix(who, "spiffe:") || strings.HasPrefix(who, "dns:")
}

func (t *ruleText) parsePod(r *parsedRule) error {
	if r.pod && slices.ContainsFunc(t.Who, ofCertificate) {
		return errors.New("who: a certificate proves no pod, which the role pod needs: pods have tokens")
	}
	if !r.pod {
		if t.PodName != "" {
			return errors.New("pod_name is for the role pod")
		}
		return nil
	}
	prefix, marked := strings.CutSuffix(t.PodName, ordinalMark)
	if !marked || checkLiteral(strings.TrimSuffix(prefix, "-")) != nil || !strings.HasSuffix(prefix, "-") {
		return errors.New("pod_name must be the name of the StatefulSet and the pod's ordinal, as in chat-{ordinal}")
	}
	if len(r.services.prefixes) > 0 {
		return errors.New("services must have no pattern with the role pod: an ordinal is that of one service")
	}
	r.podPrefix = prefix
	return nil
}

func (t *ruleText) parsePersistent(r *parsedRule) error {
	if t.Persistent == nil {
		return nil
	}
	if !r.rights.has(Place) {
		return errors.New("persistent is for roles that make links")
	}
	r.persistent = *t.Persistent
	return nil
}

func (t *ruleText) parseForce(r *parsedRule) error {
	if t.Force == nil {
		return nil
	}
	if !r.rights.has(Force) || r.admin {
		return errors.New("force is for the role operator")
	}
	if !*t.Force {
		r.rights &^= setOf(Force)
	}
	return nil
}

func (t *ruleText) parseRate(r *parsedRule) error {
	if t.Rate == nil {
		return nil
	}
	r.rate = *t.Rate
	if !(r.rate >= 1 && r.rate <= fastestRate) { // Also rejects NaN.
		return fmt.Errorf("rate must be from 1 to %d", fastestRate)
	}
	return nil
}

// parse sorts the texts of a list into literals and prefixes.
func (p *patterns) parse(texts []string, check func(string) error) error {
	if len(texts) == 0 || len(texts) > mostPatterns {
		return fmt.Errorf(" must have 1 to %d entries", mostPatterns)
	}
	for i, text := range texts {
		if err := check(text); err != nil {
			return fmt.Errorf("[%d] %w", i, err)
		}
		if prefix, ok := strings.CutSuffix(text, "*"); ok {
			p.prefixes = append(p.prefixes, prefix)
		} else {
			p.literals = append(p.literals, text)
		}
	}
	return nil
}

// names are the forms of the names that callers can have, and of patterns. A rule for another name would never match.
var names = regexp.MustCompile(`^(jwt:(\*|[a-z0-9-]{1,64}:[ -~]{1,255})` +
	`|spiffe://(\*|[a-z0-9._-]{1,255}(/[A-Za-z0-9._-]+)*(/\*)?)` +
	`|dns:(\*|[a-z0-9][a-z0-9.-]{0,252})|token:(\*|[A-Za-z0-9][A-Za-z0-9._-]{0,62}))$`)

// checkWho checks a name of callers, or a pattern.
func checkWho(text string) error {
	if len(text) > longestWho {
		return fmt.Errorf("must be at most %d bytes", longestWho)
	}
	if !names.MatchString(text) {
		return errors.New("must be like jwt:issuer:subject, spiffe://example.org/caller, dns:caller.example.org or token:name")
	}
	return checkStar(text, ":/")
}

// checkStar checks that a * is only at the end, after one of the separators.
func checkStar(text, separators string) error {
	switch at := strings.IndexByte(text, '*'); {
	case at < 0:
		return nil
	case at != len(text)-1 || at == 0 || !strings.ContainsRune(separators, rune(text[at-1])):
		return fmt.Errorf("must have a * only at its end, after one of %s", separators)
	}
	return nil
}

// checkName checks a namespace, a service, or a pattern of them.
func checkName(text string) error {
	if text == "*" {
		return nil
	}
	if len(text) > longestPattern {
		return errors.New("must be a name of at most 128 characters, or end with a *")
	}
	if prefix, ok := strings.CutSuffix(text, "*"); ok {
		return firstError(checkStar(text, "._-"), checkLiteral(strings.TrimRight(prefix, "._-")))
	}
	return checkLiteral(text)
}

var literal = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9._-]{0,126}[A-Za-z0-9])?$`)

func checkLiteral(text string) error {
	if !literal.MatchString(text) {
		return errors.New("must be 1 to 128 characters A-Z a-z 0-9 . _ -, the first and last a letter or digit, or end with a *")
	}
	return nil
}

// compile returns the rules by who.
func compile(rules []parsedRule) *ruleset {
	set := &ruleset{byName: make(map[string][]*rule), known: make(map[place][]*rule)}
	places := make(map[string]int) // in byPrefix
	for i := range rules {
		r := &rules[i]
		for j, text := range r.texts {
			set.who = append(set.who, whoText{fmt.Sprintf("%s.who[%d]", r.name, j), text})
		}
		for _, name := range r.who.literals {
			set.byName[name] = append(set.byName[name], &r.rule)
		}
		for _, prefix := range r.who.prefixes {
			at, known := places[prefix]
			if !known {
				at = len(set.byPrefix)
				places[prefix] = at
				set.byPrefix = append(set.byPrefix, whoPrefix{prefix: prefix})
			}
			set.byPrefix[at].rules = append(set.byPrefix[at].rules, &r.rule)
		}
	}
	return set
}
