package auth

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// writePolicy writes a policy's file and returns its path.
func writePolicy(t testing.TB, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "policy.yaml")
	require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
	return path
}

// policyOf returns the policy of these rules.
func policyOf(t testing.TB, text string) *Policy {
	t.Helper()
	p, err := NewPolicy(PolicyOptions{Path: writePolicy(t, text)})
	require.NoError(t, err)
	return p
}

// everyRight has the rights in their order.
var everyRight = []Right{Read, Place, Bind, Report, Operate, Force}

func TestRights(t *testing.T) {
	for name, want := range map[string][]Right{
		"reader":   {Read},
		"caller":   {Read, Place},
		"binder":   {Read, Place, Bind},
		"pod":      {Read, Place, Bind, Report},
		"operator": {Read, Place, Bind, Report, Operate, Force},
		"admin":    {Read, Place, Bind, Report, Operate, Force},
	} {
		rule := fmt.Sprintf("{who: ['token:a'], role: %s, namespaces: [game], services: [room]}", name)
		if name == "pod" {
			rule = strings.Replace(rule, "}", ", pod_name: 'room-{ordinal}'}", 1)
		}
		p := policyOf(t, "rules: ["+rule+"]")
		id := Identity{Name: "token:a", Pod: "room-2"}
		var got []Right
		for _, right := range everyRight {
			grant, err := p.Decide(id, Need{Right: right, Namespace: "game", Service: "room"})
			if err != nil {
				require.ErrorIs(t, err, ErrDenied)
				require.Equal(t, Grant{Right: right}, grant)
				continue
			}
			require.Equal(t, "rules[0]", grant.Rule)
			got = append(got, right)
			_, err = p.Decide(id, Need{Right: right, Namespace: "other", Service: "room"})
			require.ErrorIs(t, err, ErrDenied)
			_, err = p.Decide(id, Need{Right: right, Namespace: "game", Service: "other"})
			require.ErrorIs(t, err, ErrDenied)
		}
		require.Equal(t, want, got, name)
		require.Equal(t, name == "admin", p.Admin(id), name)
		require.False(t, p.Admin(Identity{Name: "token:b"}))
	}
	_, err := policyOf(t, "rules: [{who: ['token:a'], role: admin, namespaces: ['*'], services: ['*']}]").
		Decide(Identity{Name: "token:a"}, Need{Right: None, Namespace: "game", Service: "room"})
	require.ErrorIs(t, err, ErrDenied, "a call that needs no right that is known")
}

const twoRules = `
rules:
  - who: ["jwt:k8s:system:serviceaccount:games:*", "spiffe://example.org/caller"]
    role: caller
    namespaces: [game, test-*]
    services: [room, lobby.*]
  - who: ["dns:room.example.org"]
    role: reader
    namespaces: ["*"]
    services: ["*"]
`

func TestPatterns(t *testing.T) {
	p := policyOf(t, twoRules)
	for name, row := range map[string]struct {
		who, namespace, service string
		rule                    string
	}{
		"a prefix":                          {"jwt:k8s:system:serviceaccount:games:caller", "game", "room", "rules[0]"},
		"a literal":                         {"spiffe://example.org/caller", "game", "room", "rules[0]"},
		"more than a literal":               {"spiffe://example.org/caller/2", "game", "room", ""},
		"less than a literal":               {"spiffe://example.org/calle", "game", "room", ""},
		"another namespace of Kubernetes":   {"jwt:k8s:system:serviceaccount:games-evil:caller", "game", "room", ""},
		"another issuer":                    {"jwt:other:system:serviceaccount:games:caller", "game", "room", ""},
		"another kind with the same name":   {"dns:spiffe://example.org/caller", "game", "room", ""},
		"the prefix in the middle":          {"token:jwt:k8s:system:serviceaccount:games:x", "game", "room", ""},
		"a prefix of namespaces":            {"spiffe://example.org/caller", "test-1", "room", "rules[0]"},
		"not after the separator":           {"spiffe://example.org/caller", "test1", "room", ""},
		"a prefix of services":              {"spiffe://example.org/caller", "game", "lobby.eu", "rules[0]"},
		"the service without its separator": {"spiffe://example.org/caller", "game", "lobby", ""},
		"another case":                      {"spiffe://example.org/caller", "Game", "room", ""},
		"no namespace":                      {"spiffe://example.org/caller", "", "room", ""},
		"no service":                        {"spiffe://example.org/caller", "game", "", ""},
		"everything":                        {"dns:room.example.org", "any", "other", "rules[1]"},
		"no name":                           {"", "any", "other", ""},
	} {
		grant, err := p.Decide(Identity{Name: row.who}, Need{Right: Read, Namespace: row.namespace, Service: row.service})
		require.Equal(t, row.rule, grant.Rule, name)
		require.Equal(t, row.rule == "", errors.Is(err, ErrDenied), name)
	}
}

// TestWhyDenied: the error says what each rule lacks that is for the caller, as the audit log shows it.
func TestWhyDenied(t *testing.T) {
	p := policyOf(t, `
rules:
  - {who: ["token:room"], role: pod, namespaces: [game], services: [room], pod_name: "room-{ordinal}"}
  - {who: ["token:reader"], role: reader, namespaces: [game], services: ["*"]}
  - {who: ["token:reader"], role: caller, namespaces: [game], services: [room], persistent: false}
`)
	two := Pods{}
	two.Add(2)
	for why, row := range map[string]struct {
		who  Identity
		need Need
	}{
		"no rule is for this caller, namespace and service":                   {Identity{Name: "token:room", Pod: "room-2"}, Need{Right: Read, Service: "hall"}},
		"rules[0] is for pods, and the caller has not proven to be one":       {Identity{Name: "token:room"}, Need{Right: Report, Service: "room", Pods: two}},
		"rules[0] is for pods named room-{ordinal}, and the caller is hall-2": {Identity{"token:room", "hall-2"}, Need{Right: Report, Service: "room", Pods: two}},
		"rules[0] is for what the pod does itself, and the caller is room-3":  {Identity{"token:room", "room-3"}, Need{Right: Report, Service: "room", Pods: two}},
		"rules[0] does not give the right force":                              {Identity{"token:room", "room-2"}, Need{Right: Force, Service: "room", Pods: two}},
		"rules[1] does not give the right place; rules[2] allows only links that expire": {
			Identity{Name: "token:reader"}, Need{Right: Place, Service: "room", Persistent: true},
		},
	} {
		row.need.Namespace = "game"
		_, err := p.Decide(row.who, row.need)
		require.ErrorIs(t, err, ErrDenied)
		require.EqualError(t, err, "the policy does not allow the call: "+why)
	}
}

func TestUnionOfRules(t *testing.T) {
	p := policyOf(t, `
rules:
  - {who: ["token:a"], role: reader, namespaces: [game], services: [room]}
  - {who: ["token:*"], role: binder, namespaces: [game], services: [lobby], persistent: false, rate: 10}
  - {who: ["token:a"], role: caller, namespaces: [game], services: [lobby, hall], rate: 50.5}
`)
	id := Identity{Name: "token:a"}
	for name, row := range map[string]struct {
		need Need
		rule string
	}{
		"read of the one":                      {Need{Right: Read, Namespace: "game", Service: "room"}, "rules[0]"},
		"no rule has both":                     {Need{Right: Place, Namespace: "game", Service: "room"}, ""},
		"bind of the other":                    {Need{Right: Bind, Namespace: "game", Service: "lobby"}, "rules[1]"},
		"place for ever by the third":          {Need{Right: Place, Namespace: "game", Service: "lobby", Persistent: true}, "rules[2]"},
		"what one forbids the other lacks":     {Need{Right: Bind, Namespace: "game", Service: "lobby", Persistent: true}, ""},
		"several services of a rule":           {Need{Right: Read, Namespace: "game", Services: []string{"hall", "lobby"}}, "rules[2]"},
		"several services, of different rules": {Need{Right: Read, Namespace: "game", Services: []string{"room", "lobby"}}, ""},
	} {
		grant, err := p.Decide(id, row.need)
		require.Equal(t, row.rule, grant.Rule, name)
		require.Equal(t, row.rule == "", err != nil, name)
	}
	require.InDelta(t, 50.5, p.Rate(id), 0)
	require.InDelta(t, 10, p.Rate(Identity{Name: "token:b"}), 0)
	require.Zero(t, p.Rate(Identity{Name: "dns:b"}))
}

func TestServicesThatACallerSees(t *testing.T) {
	p := policyOf(t, `
rules:
  - {who: ["token:a"], role: reader, namespaces: [game], services: [room]}
  - {who: ["token:*"], role: caller, namespaces: [game], services: [eu-*]}
  - {who: ["token:a"], role: reader, namespaces: [other], services: ["*"]}
  - {who: ["token:a"], role: pod, namespaces: [game], services: [chat], pod_name: "chat-{ordinal}"}
`)
	all := Need{Right: Read, Namespace: "game", AnyService: true}
	sees := func(id Identity) (seen []string) {
		grant, err := p.Decide(id, all)
		require.NoError(t, err)
		for _, service := range []string{"room", "eu-1", "chat", "lobby"} {
			if grant.Sees(all.Namespace, service) {
				seen = append(seen, service)
			}
		}
		return seen
	}
	require.Equal(t, []string{"room", "eu-1"}, sees(Identity{Name: "token:a"}))
	require.Equal(t, []string{"room", "eu-1", "chat"}, sees(Identity{Name: "token:a", Pod: "chat-0"}))
	require.Equal(t, []string{"eu-1"}, sees(Identity{Name: "token:b", Pod: "chat-0"}))
	all.Namespace = "third"
	_, err := p.Decide(Identity{Name: "token:a"}, all)
	require.ErrorIs(t, err, ErrDenied)
}

// TestNamespacesThatACallerSees: a call about all namespaces takes whoever may see a service, and sees each rule's services in the
// rule's namespaces only.
func TestNamespacesThatACallerSees(t *testing.T) {
	p := policyOf(t, `
rules:
  - {who: ["token:a"], role: reader, namespaces: [game], services: [room]}
  - {who: ["token:a"], role: caller, namespaces: [test-*], services: [eu-*]}
  - {who: ["token:a"], role: pod, namespaces: [game], services: [chat], pod_name: "chat-{ordinal}"}
  - {who: ["token:b"], role: operator, namespaces: ["*"], services: [room]}
`)
	all := []string{"game/room", "game/chat", "game/eu-1", "test-1/eu-1", "test-1/room", "other/room"}
	for name, row := range map[string]struct {
		who  Identity
		sees []string
	}{
		"its rules": {Identity{Name: "token:a"}, []string{"game/room", "test-1/eu-1"}},
		"a pod":     {Identity{Name: "token:a", Pod: "chat-0"}, []string{"game/room", "game/chat", "test-1/eu-1"}},
		"a pattern": {Identity{Name: "token:b"}, []string{"game/room", "test-1/room", "other/room"}},
	} {
		grant, err := p.Decide(row.who, Need{Right: Read, AnyNamespace: true})
		require.NoError(t, err, name)
		var seen []string
		for _, key := range all {
			namespace, service, _ := strings.Cut(key, "/")
			if grant.Sees(namespace, service) {
				seen = append(seen, key)
			}
		}
		require.Equal(t, row.sees, seen, name)
	}
	_, err := p.Decide(Identity{Name: "token:c"}, Need{Right: Read, AnyNamespace: true})
	require.ErrorIs(t, err, ErrDenied, "who sees nothing at all")
	_, err = p.Decide(Identity{Name: "token:a"}, Need{Right: Operate, AnyNamespace: true})
	require.ErrorIs(t, err, ErrDenied, "who has the right nowhere")
}

// podsOf returns the pods.
func podsOf(list ...int32) (pods Pods) {
	for _, pod := range list {
		pods.Add(pod)
	}
	return pods
}

func TestRolePod(t *testing.T) {
	p := policyOf(t, `
rules:
  - {who: ["jwt:k8s:*"], role: pod, namespaces: [game], services: [chat], pod_name: "chat-{ordinal}"}
`)
	for name, row := range map[string]struct {
		pod     string
		right   Right
		pods    Pods
		allowed bool
	}{
		"reads":                          {"chat-2", Read, Pods{}, true},
		"places":                         {"chat-2", Place, Pods{}, true},
		"places on itself":               {"chat-2", Place, podsOf(2), true},
		"places on another":              {"chat-2", Place, podsOf(3), false},
		"reports itself":                 {"chat-2", Report, podsOf(2), true},
		"reports another":                {"chat-2", Report, podsOf(0), false},
		"binds to itself":                {"chat-2", Bind, podsOf(2), true},
		"binds to itself, twice":         {"chat-2", Bind, podsOf(2, 2), true},
		"binds to another":               {"chat-2", Bind, podsOf(1), false},
		"binds to itself and another":    {"chat-2", Bind, podsOf(2, 1), false},
		"binds to another and itself":    {"chat-2", Bind, podsOf(1, 2), false},
		"binds without a pod":            {"chat-2", Bind, Pods{}, true},
		"operates":                       {"chat-2", Operate, podsOf(2), false},
		"forces":                         {"chat-2", Force, podsOf(2), false},
		"the largest":                    {"chat-2147483647", Bind, podsOf(2147483647), true},
		"a larger one":                   {"chat-2147483648", Read, Pods{}, false},
		"one that wraps around":          {"chat-4294967298", Report, podsOf(2), false},
		"a very long one":                {"chat-" + strings.Repeat("9", 1000), Read, Pods{}, false},
		"pod 0":                          {"chat-0", Report, podsOf(0), true},
		"leading zeros":                  {"chat-02", Report, podsOf(2), false},
		"a sign":                         {"chat--2", Report, podsOf(2), false},
		"a plus sign":                    {"chat-+2", Report, podsOf(2), false},
		"other digits":                   {"chat-٢", Report, podsOf(2), false},
		"of a StatefulSet like it":       {"chat-canary-2", Read, Pods{}, false},
		"of a StatefulSet that ends so":  {"my-chat-2", Read, Pods{}, false},
		"no ordinal":                     {"chat-", Read, Pods{}, false},
		"no pod":                         {"", Read, Pods{}, false},
		"something after the ordinal":    {"chat-2x", Read, Pods{}, false},
		"a pod of a Deployment":          {"chat-5d4f-x7k2p", Read, Pods{}, false},
		"another case in the pod's name": {"Chat-2", Read, Pods{}, false},
	} {
		need := Need{Right: row.right, Namespace: "game", Service: "chat", Pods: row.pods}
		grant, err := p.Decide(Identity{Name: "jwt:k8s:system:serviceaccount:games:chat", Pod: row.pod}, need)
		require.Equal(t, row.allowed, err == nil, name)
		if row.allowed && row.right == Bind {
			require.NotNil(t, grant.Own, name)
			require.True(t, row.pods.only(*grant.Own), name)
		} else {
			require.Nil(t, grant.Own, name)
		}
		require.Equal(t, row.right, grant.Right, name)
	}
}

// TestPodWithAnotherRole: a rule that allows a call for every pod goes before one that allows it for the caller's own.
func TestPodWithAnotherRole(t *testing.T) {
	const pod = `{who: ["token:a"], role: pod, namespaces: [game], services: [chat], pod_name: "chat-{ordinal}"}`
	const binder = `{who: ["token:*"], role: binder, namespaces: [game], services: [chat]}`
	for _, text := range []string{pod + ", " + binder, binder + ", " + pod} {
		grant, err := policyOf(t, "rules: ["+text+"]").Decide(Identity{Name: "token:a", Pod: "chat-2"},
			Need{Right: Bind, Namespace: "game", Service: "chat"})
		require.NoError(t, err)
		require.Nil(t, grant.Own)
	}
}

func TestReportOfAnotherIsOperating(t *testing.T) {
	p := policyOf(t, "rules: [{who: ['token:a'], role: operator, namespaces: [game], services: [chat], force: false}]")
	id := Identity{Name: "token:a"}
	grant, err := p.Decide(id, Need{Right: Report, Namespace: "game", Service: "chat", Pods: podsOf(2)})
	require.NoError(t, err)
	require.Equal(t, Operate, grant.Right)
	_, err = p.Decide(id, Need{Right: Force, Namespace: "game", Service: "chat"})
	require.ErrorIs(t, err, ErrDenied, "the rule takes it away")
}

func TestPolicyMistakes(t *testing.T) {
	const ok = "who: ['token:a'], role: caller, namespaces: [game], services: [room]"
	rule := func(text string) string { return "rules: [{" + text + "}]" }
	long := "token:" + strings.Repeat("x", longestWho)
	for name, row := range map[string]struct{ text, err string }{
		"nothing":               {"", "must have rules"},
		"a comment":             {"# rules", "must have rules"},
		"no rules":              {"rules: []", "must have rules"},
		"rules without a value": {"rules:", "must have rules"},
		"not a map":             {"- a", "line 1 has a value of the wrong type"},
		"not YAML":              {"rules: [", "line 1 or after it is not YAML"},
		"an unknown key": {rule(ok + ", secret: 1"),
			"line 1 has an unknown key; the file has the key rules, and a rule who, role, namespaces, services, pod_name, persistent, force and rate"},
		"a pod by certificate":       {rule("who: ['spiffe://a/b'], role: pod, namespaces: [game], services: [a], pod_name: 'a-{ordinal}'"), "rules[0].who: a certificate proves no pod"},
		"a pod by its DNS name":      {rule("who: ['token:a', 'dns:a'], role: pod, namespaces: [game], services: [a], pod_name: 'a-{ordinal}'"), "rules[0].who: a certificate proves no pod"},
		"an unknown key at the top":  {rule(ok) + "\ntoken-of-alice: 1", "line 2 has an unknown key"},
		"a key twice":                {rule(ok + ", role: admin"), "line 1 has a key twice"},
		"two documents":              {rule(ok) + "\n---\n" + rule(ok), "must be one YAML document"},
		"a broken second document":   {rule(ok) + "\n---\n[", "must be one YAML document"},
		"a text for a list":          {rule("who: 'token:a', role: caller"), "line 1 has a value of the wrong type"},
		"a text for a bool":          {rule(ok + ", persistent: never"), "line 1 has a value of the wrong type"},
		"a * without quotes":         {rule("who: [*], role: caller"), `has a * without quotes; write "*"`},
		"no role":                    {rule("who: ['token:a'], namespaces: [game], services: [room]"), "rules[0].role must be"},
		"an unknown role":            {rule(strings.Replace(ok, "caller", "root", 1)), "rules[0].role must be reader, caller"},
		"a role in capitals":         {rule(strings.Replace(ok, "caller", "Caller", 1)), "rules[0].role must be"},
		"no who":                     {rule("role: caller, namespaces: [game], services: [room]"), "rules[0].who must have 1 to 256"},
		"no namespaces":              {rule("who: ['token:a'], role: caller, services: [room]"), "rules[0].namespaces must have 1"},
		"no services":                {rule("who: ['token:a'], role: caller, namespaces: [game]"), "rules[0].services must have 1"},
		"everyone":                   {rule(strings.Replace(ok, "token:a", "*", 1)), "rules[0].who[0] must be like jwt:"},
		"an unknown kind":            {rule(strings.Replace(ok, "token:a", "user:a", 1)), "rules[0].who[0] must be like jwt:"},
		"a kind without a name":      {rule(strings.Replace(ok, "token:a", "token:", 1)), "rules[0].who[0] must be like jwt:"},
		"an empty who":               {rule(strings.Replace(ok, "token:a", "", 1)), "rules[0].who[0] must be like"},
		"a who without a separator":  {rule(strings.Replace(ok, "token:a", "token:a*", 1)), "rules[0].who[0] must "},
		"a who with a * inside":      {rule(strings.Replace(ok, "token:a", "jwt:*:a", 1)), "rules[0].who[0] must "},
		"a who with two":             {rule(strings.Replace(ok, "token:a", "jwt:*:*", 1)), "rules[0].who[0] must "},
		"a who after a dash":         {rule(strings.Replace(ok, "token:a", "token:a-*", 1)), "rules[0].who[0] must "},
		"a JWT of no issuer":         {rule(strings.Replace(ok, "token:a", "jwt::a", 1)), "rules[0].who[0] must be like"},
		"a JWT without a subject":    {rule(strings.Replace(ok, "token:a", "jwt:k8s:", 1)), "rules[0].who[0] must be like"},
		"a DNS name in capitals":     {rule(strings.Replace(ok, "token:a", "dns:A.example", 1)), "rules[0].who[0] must be like"},
		"a trust domain in capitals": {rule(strings.Replace(ok, "token:a", "spiffe://A/b", 1)), "rules[0].who[0] must be like"},
		"a SPIFFE id that ends so":   {rule(strings.Replace(ok, "token:a", "spiffe://a/b/", 1)), "rules[0].who[0] must be like"},
		"a SPIFFE id with a query":   {rule(strings.Replace(ok, "token:a", "spiffe://a/b?c", 1)), "rules[0].who[0] must be like"},
		"a SPIFFE id with a *":       {rule(strings.Replace(ok, "token:a", "spiffe://a/b*", 1)), "rules[0].who[0] must be like"},
		"a token's name with a :":    {rule(strings.Replace(ok, "token:a", "token:a:b", 1)), "rules[0].who[0] must be like"},
		"a long who":                 {rule(strings.Replace(ok, "token:a", long, 1)), "rules[0].who[0] must be at most 512 bytes"},
		"a control character":        {rule(strings.Replace(ok, "'token:a'", `"token:a\x00"`, 1)), "rules[0].who[0] must be like"},
		"a malformed namespace":      {rule(strings.Replace(ok, "game", "'game/x'", 1)), "rules[0].namespaces[0] must be 1 to 128"},
		"an empty namespace":         {rule(strings.Replace(ok, "game", "''", 1)), "rules[0].namespaces[0] must be 1 to 128"},
		"a null for a namespace":     {rule(strings.Replace(ok, "game", "~", 1)), "rules[0].namespaces must have 1 to 256"},
		"a namespace with a dash":    {rule(strings.Replace(ok, "game", "game-", 1)), "rules[0].namespaces[0] must be 1 to 128"},
		"a service with a * inside":  {rule(strings.Replace(ok, "room", "'ro*m'", 1)), "rules[0].services[0] must be 1 to 128"},
		"a service with two":         {rule(strings.Replace(ok, "room", "'ro-**'", 1)), "rules[0].services[0] must have a *"},
		"a service without a dash":   {rule(strings.Replace(ok, "room", "'ro*'", 1)), "rules[0].services[0] must have a *"},
		"only a separator":           {rule(strings.Replace(ok, "room", "'-*'", 1)), "rules[0].services[0] must be 1 to 128"},
		"a pod's name of a caller":   {rule(ok + ", pod_name: 'chat-{ordinal}'"), "rules[0].pod_name is for the role pod"},
		"force of a caller":          {rule(ok + ", force: true"), "rules[0].force is for the role operator"},
		"persistent of a reader":     {rule(strings.Replace(ok, "caller", "reader", 1) + ", persistent: true"), "rules[0].persistent is for"},
		"a rate of 0":                {rule(ok + ", rate: 0"), "rules[0].rate must be from 1 to 1000000"},
		"a rate that is no number":   {rule(ok + ", rate: .nan"), "rules[0].rate must be"},
		"an endless rate":            {rule(ok + ", rate: .inf"), "rules[0].rate must be"},
		"an admin without force":     {rule(strings.Replace(ok, "caller", "admin", 1) + ", force: false"), "rules[0].force is for"},
		"a pod without a name":       {rule(strings.Replace(ok, "caller", "pod", 1)), "rules[0].pod_name must be"},
		"a pod without its ordinal":  {rule(strings.Replace(ok, "caller", "pod", 1) + ", pod_name: room-0"), "rules[0].pod_name must be"},
		"any pod":                    {rule(strings.Replace(ok, "caller", "pod", 1) + ", pod_name: '{ordinal}'"), "rules[0].pod_name must be"},
		"a pod without a separator":  {rule(strings.Replace(ok, "caller", "pod", 1) + ", pod_name: 'room{ordinal}'"), "rules[0].pod_name must be"},
		"a pod with a pattern":       {rule(strings.Replace(ok, "caller", "pod", 1) + ", pod_name: '*-{ordinal}'"), "rules[0].pod_name must be"},
		"a pod of every service":     {rule("who: ['token:a'], role: pod, namespaces: [game], services: ['*'], pod_name: 'a-{ordinal}'"), "rules[0].services must"},
		"an ordinal in the middle":   {rule(strings.Replace(ok, "caller", "pod", 1) + ", pod_name: 'a-{ordinal}-b'"), "rules[0].pod_name must be"},
		"too many rules":             {"rules: [" + strings.Repeat("{"+ok+"}, ", mostRules+1) + "]", "at most 1000 rules"},
		"too many entries in a list": {rule("who: [" + strings.Repeat("'token:a', ", mostPatterns+1) + "], role: caller"), "who must have 1 to 256"},
		"a second rule":              {"rules: [{" + ok + "}, {" + ok + ", force: true}]", "rules[1].force is for"},
		"too large":                  {"#" + strings.Repeat("x", largestPolicy), "more than 1048576 bytes"},
	} {
		_, err := NewPolicy(PolicyOptions{Path: writePolicy(t, row.text)})
		require.ErrorContains(t, err, row.err, name)
		require.ErrorContains(t, err, "auth.policy_file: ", name)
		for _, content := range []string{"secret", "alice", "never", "user:a", "root", "game/x"} {
			require.NotContains(t, err.Error(), content, name)
		}
	}
}

// TestNamesOfCallers: what callers can be named by is taken, and patterns of it.
func TestNamesOfCallers(t *testing.T) {
	for _, who := range []string{
		"jwt:k8s:system:serviceaccount:games:chat", "jwt:k8s:system:serviceaccount:games:*", "jwt:k8s:*", "jwt:*", "jwt:sso:auth0|5f7 a",
		"jwt:sso:https://example.org/people/*", "spiffe://example.org", "spiffe://example.org/ns/games/sa/chat", "spiffe://example.org/*",
		"spiffe://example.org/ns/games/*", "spiffe://*", "dns:chat.games.svc", "dns:*", "token:router", "token:*",
	} {
		require.NoError(t, checkWho(who), who)
	}
}

func TestPolicyIsARegularFile(t *testing.T) {
	folder := t.TempDir()
	fifo := filepath.Join(folder, "fifo")
	require.NoError(t, syscall.Mkfifo(fifo, 0o600))
	for path, text := range map[string]string{
		fifo: "not a regular file", folder: "not a regular file", filepath.Join(folder, "missing"): "no such file",
	} {
		_, err := NewPolicy(PolicyOptions{Path: path})
		require.ErrorContains(t, err, text)
	}
}

// aliases is a file of nine lines that expands to a billion texts.
func aliases() string {
	var text strings.Builder
	text.WriteString("a0: &a0 [" + strings.TrimSuffix(strings.Repeat("x, ", 10), ", ") + "]\n")
	for i := 1; i < 9; i++ {
		fmt.Fprintf(&text, "a%d: &a%d [%s]\n", i, i, strings.TrimSuffix(strings.Repeat(fmt.Sprintf("*a%d, ", i-1), 10), ", "))
	}
	return text.String()
}

func TestPolicyOfAliases(t *testing.T) {
	_, err := NewPolicy(PolicyOptions{Path: writePolicy(t, aliases()+"rules: *a8")})
	require.Error(t, err)
}

const (
	readers = "rules: [{who: ['token:a'], role: reader, namespaces: [game], services: [room]}]"
	callers = "rules: [{who: ['token:a'], role: caller, namespaces: [game], services: [room]}]"
)

// TestPolicyReload: the file is in force as a whole as soon as it is read, and one with a mistake changes nothing.
func TestPolicyReload(t *testing.T) {
	path := writePolicy(t, readers)
	synctest.Test(t, func(t *testing.T) {
		var reloads []error
		p, err := NewPolicy(PolicyOptions{Path: path, Reloaded: func(key string, err error) {
			require.Equal(t, "auth.policy_file", key)
			reloads = append(reloads, err)
		}})
		require.NoError(t, err)
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- p.Run(ctx) }()
		// after replaces the file, waits for it to be read twice, and returns the rights that are in force then.
		after := func(text string) (granted []Right) {
			if text == "" {
				require.NoError(t, os.Remove(path))
			} else {
				require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
			}
			time.Sleep(20*time.Second + time.Millisecond)
			synctest.Wait()
			for _, right := range everyRight {
				if _, err := p.Decide(Identity{Name: "token:a"}, Need{Right: right, Namespace: "game", Service: "room"}); err == nil {
					granted = append(granted, right)
				}
			}
			return granted
		}
		require.EqualValues(t, 1, p.Generation())
		require.Equal(t, []Right{Read}, after(readers))
		require.EqualValues(t, 1, p.Generation(), "the same content")
		require.Equal(t, []Right{Read, Place}, after(callers))
		require.EqualValues(t, 2, p.Generation())
		require.False(t, p.Failing())
		require.Equal(t, []error{nil}, reloads)

		for i, broken := range []string{callers + "]", "rules: []", ""} {
			require.Equal(t, []Right{Read, Place}, after(broken), "the last good one")
			require.EqualValues(t, 2, p.Generation())
			require.True(t, p.Failing())
			require.EqualValues(t, 2*(i+1), p.Failures())
			require.Len(t, reloads, 2+i, "once each")
			require.ErrorContains(t, reloads[1+i], "auth.policy_file: ")
		}
		require.Equal(t, []Right{Read, Place}, after(callers))
		require.False(t, p.Failing())
		require.EqualValues(t, 2, p.Generation(), "the rules in force")
		require.Len(t, reloads, 5, "it is repaired")
		require.NoError(t, reloads[4])
		require.Equal(t, []Right{Read}, after(readers))
		require.EqualValues(t, 3, p.Generation())

		cancel()
		require.NoError(t, <-ended)
	})
}

// TestPolicyReloadUnderCalls: a call is decided by one policy, the old or the new one.
func TestPolicyReloadUnderCalls(t *testing.T) {
	path := writePolicy(t, readers)
	p, err := NewPolicy(PolicyOptions{Path: path})
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	for range 4 {
		running.Go(func() {
			for ctx.Err() == nil {
				_, err := p.Decide(Identity{Name: "token:a"}, Need{Right: Read, Namespace: "game", Service: "room"})
				if err != nil {
					t.Error("both policies allow it")
					return
				}
			}
		})
	}
	for i, text := range []string{callers, readers, callers} {
		require.NoError(t, os.WriteFile(path+".new", []byte(text), 0o600))
		require.NoError(t, os.Rename(path+".new", path))
		require.NoError(t, p.read())
		require.EqualValues(t, i+2, p.Generation())
	}
	cancel()
	running.Wait()
}

// TestNamesFillNoMemory: what a caller names is kept only where a rule has it, and not without bound.
func TestNamesFillNoMemory(t *testing.T) {
	p := policyOf(t, "rules: [{who: ['token:a'], role: reader, namespaces: [game-*], services: ['*']}]")
	known := func() int { return len(p.rules.Load().known) }
	id := Identity{Name: "token:a"}
	for i := range mostPlaces + 10 {
		_, err := p.Decide(id, Need{Right: Read, Namespace: "other", Service: fmt.Sprint(i)})
		require.ErrorIs(t, err, ErrDenied)
	}
	_, err := p.Decide(id, Need{Right: Read, Namespace: "game-" + strings.Repeat("x", longestName), Service: "room"})
	require.NoError(t, err)
	_, err = p.Decide(id, Need{Right: Read, Namespace: "game-1", Service: strings.Repeat("x", longestName+1)})
	require.NoError(t, err)
	require.Zero(t, known())
	for i := range 2*mostPlaces + 10 {
		_, err := p.Decide(id, Need{Right: Read, Namespace: "game-1", Service: fmt.Sprint(i)})
		require.NoError(t, err)
		require.LessOrEqual(t, known(), mostPlaces)
	}
	require.Equal(t, 10, known())
}

func FuzzPolicy(f *testing.F) {
	for _, text := range []string{
		"", readers, twoRules, "rules: [*]", "rules: [{who: ['token:*'], role: pod, pod_name: 'a-{ordinal}'}]", "a: &a [*a]", "\x00", "%YAML 9",
	} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		rules, err := parsePolicy([]byte(text))
		if err != nil {
			return
		}
		set := compile(rules)
		id, need := &Identity{Name: "nobody"}, &Need{Right: Read, Namespace: "game", Service: "room"}
		if _, err := set.decide(id, need); err == nil {
			t.Fatal("whoever has no kind of name is not in a policy")
		}
		for i := range rules {
			for _, list := range []patterns{rules[i].who, rules[i].namespaces, rules[i].services} {
				if len(list.literals)+len(list.prefixes) == 0 {
					t.Fatal("an empty list")
				}
			}
		}
	})
}

// FuzzOrdinal: no name of a pod is taken for another ordinal than the one that it ends with.
func FuzzOrdinal(f *testing.F) {
	for _, pod := range []string{"chat-2", "chat-02", "chat-2147483648", "chat-4294967298", "chat--1", "chat-", ""} {
		f.Add(pod)
	}
	r := &rule{podPrefix: "chat-"}
	f.Fuzz(func(t *testing.T, pod string) {
		if n, ok := r.ordinal(pod); ok && pod != fmt.Sprintf("chat-%d", n) {
			t.Fatalf("%q is not pod %d", pod, n)
		}
	})
}

// hundredRules is a policy of a hundred rules, the last of which allows the call of the benchmarks.
func hundredRules(who func(i int) string) string {
	var text strings.Builder
	text.WriteString("rules:\n")
	for i := range 100 {
		fmt.Fprintf(&text, "  - {who: ['%s'], role: caller, namespaces: [game-%d], services: [room, lobby]}\n", who(i), i)
	}
	return text.String()
}

func BenchmarkDecide(b *testing.B) {
	const name = "jwt:k8s:system:serviceaccount:games:room"
	need := Need{Right: Place, Namespace: "game-99", Service: "lobby"}
	for kind, who := range map[string]func(i int) string{
		"own rule": func(i int) string {
			return fmt.Sprintf("jwt:k8s:system:serviceaccount:games-%d:room", 99-i) + strings.Repeat("x", min(i, 1))
		},
		"patterns": func(i int) string {
			return fmt.Sprintf("jwt:k8s:system:serviceaccount:games%s:*", strings.Repeat(fmt.Sprintf("-%d", i), min(99-i, 1)))
		},
		"same rules": func(int) string { return name },
	} {
		b.Run(kind, func(b *testing.B) {
			b.ReportAllocs()
			p := policyOf(b, hundredRules(who))
			id := Identity{Name: name}
			if kind == "own rule" {
				id.Name = "jwt:k8s:system:serviceaccount:games-0:roomx"
			}
			for b.Loop() {
				if _, err := p.Decide(id, need); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
	b.Run("pod", func(b *testing.B) {
		b.ReportAllocs()
		p := policyOf(b, "rules: [{who: ['jwt:k8s:*'], role: pod, namespaces: [game], services: [chat], pod_name: 'chat-{ordinal}'}]")
		id, need := Identity{Name: name, Pod: "chat-17"}, Need{Right: Bind, Namespace: "game", Service: "chat", Pods: podsOf(17)}
		for b.Loop() {
			if _, err := p.Decide(id, need); err != nil {
				b.Fatal(err)
			}
		}
	})
}
