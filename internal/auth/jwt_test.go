package auth

import (
	"crypto/elliptic"
	"encoding/base64"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/stretchr/testify/require"
)

func at(d time.Duration) int64 { return begin.Add(d).Unix() }

// kubernetesClaims are those of a projected token of a service account, as the API server issues it.
func kubernetesClaims(namespace, account, pod string) object {
	return goodClaims().with("sub", "system:serviceaccount:"+namespace+":"+account).with("kubernetes.io", map[string]any{
		"namespace": namespace, "node": map[string]any{"name": "node-7", "uid": "n"},
		"pod": map[string]any{"name": pod, "uid": "p"}, "serviceaccount": map[string]any{"name": account, "uid": "s"},
	})
}

// otherEnd returns another last character of a signature of 64 bytes, whose additional bits a lenient decoder ignores.
func otherEnd(last byte) string {
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	return string(alphabet[strings.IndexByte(alphabet, last)^1])
}

// TestJWT: what a token must have, and that each deviation is refused for its cause.
func TestJWT(t *testing.T) {
	f := newFixture(t)
	key := ecKey()
	header, good := key.header(), goodClaims()
	alice := Identity{Name: "jwt:main:alice"}
	claims := func(o object) string { return key.token(t, o) }
	head := func(o object) string { return key.sign(t, o.String(), good.String()) }
	valid := claims(good)
	parts := strings.Split(valid, ".")
	wrongCurve := newECKey(t, "p384", elliptic.P384())
	wrongCurve.method = jwt.SigningMethodES384
	hmac := signingKey{method: jwt.SigningMethodHS256, private: []byte(rsaKey().jwk["n"].(string))}
	pss := rsaKey()
	pss.method = jwt.SigningMethodPS256
	rs512 := rsaKey()
	rs512.method = jwt.SigningMethodRS512

	for name, row := range map[string]struct {
		token string
		cause Cause
		want  Identity
	}{
		"ES256":                    {token: valid, want: alice},
		"RS256":                    {token: rsaKey().token(t, good), want: alice},
		"EdDSA":                    {token: edKey().token(t, good), want: alice},
		"no kid":                   {token: head(header.with("kid", nil)), want: alice},
		"no typ":                   {token: head(header.with("typ", nil)), want: alice},
		"typ of an access token":   {token: head(header.with("typ", "at+jwt")), want: alice},
		"typ as a media type":      {token: head(header.with("typ", "application/at+JWT")), want: alice},
		"one audience":             {token: claims(good.with("aud", "podlink")), want: alice},
		"the second audience":      {token: claims(good.with("aud", []string{"other", "podlink.example"})), want: alice},
		"no nbf":                   {token: claims(good.with("nbf", nil)), want: alice},
		"no iat":                   {token: claims(good.with("iat", nil)), want: alice},
		"expired within leeway":    {token: claims(good.with("exp", at(-29*time.Second)).with("iat", at(-time.Hour))), want: alice},
		"nbf within leeway":        {token: claims(good.with("nbf", at(29*time.Second))), want: alice},
		"iat within leeway":        {token: claims(good.with("iat", at(29*time.Second))), want: alice},
		"lifetime of a day":        {token: claims(good.with("exp", at(24*time.Hour))), want: alice},
		"dates with fractions":     {token: claims(good.with("exp", float64(at(time.Minute))+0.5)), want: alice},
		"a header that points":     {token: head(header.with("jku", "https://evil.example/keys").with("x5u", "https://evil.example")), want: alice},
		"a header with a key":      {token: head(header.with("jwk", edKey().jwk)), want: alice},
		"deep claims":              {token: claims(good.with("x", map[string]any{"y": []any{map[string]any{"y": 1}, []any{}}})), want: alice},
		"the longest subject":      {token: claims(good.with("sub", strings.Repeat("a", 255))), want: Identity{Name: "jwt:main:" + strings.Repeat("a", 255)}},
		"a subject with separator": {token: claims(good.with("sub", "auth0|x:y/*")), want: Identity{Name: "jwt:main:auth0|x:y/*"}},

		"Kubernetes": {
			token: claims(kubernetesClaims("shop", "chat", "chat-2")),
			want:  Identity{Name: "jwt:main:system:serviceaccount:shop:chat", Pod: "chat-2"},
		},
		"Kubernetes without a pod": {
			token: claims(goodClaims().with("sub", "system:serviceaccount:shop:chat")),
			want:  Identity{Name: "jwt:main:system:serviceaccount:shop:chat"},
		},
		"pod of another subject": {
			token: claims(kubernetesClaims("shop", "chat", "chat-2").with("sub", "alice")), want: alice,
		},
		"pod of another namespace": {
			token: claims(kubernetesClaims("shop", "chat", "chat-2").with("sub", "system:serviceaccount:evil:chat")),
			want:  Identity{Name: "jwt:main:system:serviceaccount:evil:chat"},
		},
		"pod of another account": {
			token: claims(kubernetesClaims("shop", "chat", "chat-2").with("sub", "system:serviceaccount:shop:other")),
			want:  Identity{Name: "jwt:main:system:serviceaccount:shop:other"},
		},
		"a pod that is no name": {
			token: claims(kubernetesClaims("shop", "chat", "chat-2\n")), want: Identity{Name: "jwt:main:system:serviceaccount:shop:chat"},
		},
		"Kubernetes' claim is a text": {
			token: claims(goodClaims().with("sub", "system:serviceaccount:shop:chat").with("kubernetes.io", "chat-2")),
			want:  Identity{Name: "jwt:main:system:serviceaccount:shop:chat"},
		},

		"another issuer":           {token: claims(good.with("iss", "https://evil.example")), cause: UnknownIssuer},
		"issuer with a slash":      {token: claims(good.with("iss", issuerURL+"/")), cause: UnknownIssuer},
		"issuer in upper case":     {token: claims(good.with("iss", strings.ToUpper(issuerURL))), cause: UnknownIssuer},
		"no issuer":                {token: claims(good.with("iss", nil)), cause: UnknownIssuer},
		"issuer is a list":         {token: claims(good.with("iss", []string{issuerURL})), cause: UnknownIssuer},
		"another audience":         {token: claims(good.with("aud", "other")), cause: WrongAudience},
		"audience that begins so":  {token: claims(good.with("aud", "podlink2")), cause: WrongAudience},
		"no audience":              {token: claims(good.with("aud", nil)), cause: BadClaims},
		"empty audiences":          {token: claims(good.with("aud", []string{})), cause: BadClaims},
		"audience is a number":     {token: claims(good.with("aud", 7)), cause: BadClaims},
		"audience of mixed types":  {token: claims(good.with("aud", []any{"podlink", 7})), cause: BadClaims},
		"no exp":                   {token: claims(good.with("exp", nil)), cause: BadClaims},
		"exp is null":              {token: key.sign(t, header.String(), strings.Replace(good.String(), `"exp":`, `"exp":null,"x":`, 1)), cause: BadClaims},
		"exp of zero":              {token: claims(good.with("exp", 0)), cause: BadClaims},
		"exp is a text":            {token: claims(good.with("exp", "1795867800")), cause: BadClaims},
		"exp before 1970":          {token: claims(good.with("exp", -1)), cause: BadClaims},
		"exp beyond all dates":     {token: claims(good.with("exp", 1e300)), cause: BadClaims},
		"exp in milliseconds":      {token: claims(good.with("exp", at(time.Minute)*1000)), cause: BadClaims},
		"exp beyond floats":        {token: key.sign(t, header.String(), strings.Replace(good.String(), `"exp":`, `"exp":1e999,"x":`, 1)), cause: Malformed},
		"expired":                  {token: claims(good.with("exp", at(-30*time.Second)).with("iat", at(-time.Hour))), cause: Expired},
		"nbf in the future":        {token: claims(good.with("nbf", at(31*time.Second))), cause: NotYetValid},
		"nbf is a text":            {token: claims(good.with("nbf", "now")), cause: BadClaims},
		"iat in the future":        {token: claims(good.with("iat", at(31*time.Second))), cause: NotYetValid},
		"iat is a text":            {token: claims(good.with("iat", "now")), cause: BadClaims},
		"longer than a day":        {token: claims(good.with("exp", at(24*time.Hour+time.Second))), cause: WrongLifetime},
		"the last hour of a month": {token: claims(good.with("iat", at(-720*time.Hour)).with("exp", at(time.Hour))), cause: WrongLifetime},
		"unknown lifetime":         {token: claims(good.with("iat", nil).with("nbf", nil)), cause: WrongLifetime},
		"no subject":               {token: claims(good.with("sub", nil)), cause: BadClaims},
		"empty subject":            {token: claims(good.with("sub", "")), cause: BadClaims},
		"subject is a number":      {token: claims(good.with("sub", 7)), cause: BadClaims},
		"subject with a line":      {token: claims(good.with("sub", "alice\nlevel=info")), cause: BadClaims},
		"subject with a space":     {token: claims(good.with("sub", "alice ")), cause: BadClaims},
		"subject looks the same":   {token: claims(good.with("sub", "аlice")), cause: BadClaims}, // Cyrillic.
		"half a surrogate":         {token: key.sign(t, header.String(), strings.Replace(good.String(), `"alice"`, `"alice\ud800"`, 1)), cause: BadClaims},
		"subject too long":         {token: claims(good.with("sub", strings.Repeat("a", 256))), cause: BadClaims},

		"two subjects":         {token: key.sign(t, header.String(), strings.Replace(good.String(), `"sub":`, `"sub":"root","sub":`, 1)), cause: Malformed},
		"two, one escaped":     {token: key.sign(t, header.String(), strings.Replace(good.String(), `"sub":`, `"s\u0075b":"root","sub":`, 1)), cause: Malformed},
		"two further down":     {token: key.sign(t, header.String(), strings.Replace(good.String(), `"sub":`, `"x":[{"y":1,"y":2}],"sub":`, 1)), cause: Malformed},
		"two algorithms":       {token: key.sign(t, strings.Replace(header.String(), `"alg":`, `"alg":"none","alg":`, 1), good.String()), cause: Malformed},
		"claims are a list":    {token: key.sign(t, header.String(), `["iss"]`), cause: Malformed},
		"claims are null":      {token: key.sign(t, header.String(), `null`), cause: UnknownIssuer},
		"claims are a text":    {token: key.sign(t, header.String(), `"iss"`), cause: Malformed},
		"claims end early":     {token: key.sign(t, header.String(), `{"iss":"x"`), cause: Malformed},
		"claims go on":         {token: key.sign(t, header.String(), good.String()+`{}`), cause: Malformed},
		"claims nest":          {token: key.sign(t, header.String(), `{"x":`+strings.Repeat("[", 2000)+strings.Repeat("]", 2000)+`}`), cause: Malformed},
		"no UTF-8":             {token: key.sign(t, header.String(), strings.Replace(good.String(), "alice", "al\xffice", 1)), cause: Malformed},
		"names in upper case":  {token: claims(good.with("exp", nil).with("EXP", at(time.Minute))), cause: BadClaims},
		"header is a list":     {token: key.sign(t, `[]`, good.String()), cause: Malformed},
		"header is null":       {token: key.sign(t, `null`, good.String()), cause: Malformed},
		"header is empty":      {token: key.sign(t, `{}`, good.String()), cause: WrongAlgorithm},
		"no header":            {token: "." + parts[1] + "." + parts[2], cause: Malformed},
		"no signature":         {token: parts[0] + "." + parts[1] + ".", cause: BadSignature},
		"two parts":            {token: parts[0] + "." + parts[1], cause: UnknownToken},
		"four parts":           {token: valid + "." + parts[2], cause: UnknownToken},
		"padding":              {token: valid + "=", cause: Malformed},
		"standard base64":      {token: parts[0] + "." + base64.RawStdEncoding.EncodeToString([]byte(`{"iss":"???>>>"}`)) + "." + parts[2], cause: Malformed},
		"bits behind the end":  {token: valid[:len(valid)-1] + otherEnd(valid[len(valid)-1]), cause: Malformed},
		"longer than a header": {token: claims(good.with("x", strings.Repeat("x", maxToken))), cause: TooLong},

		"crit":                  {token: head(header.with("crit", []string{"exp"}).with("exp", 1)), cause: WrongType},
		"empty crit":            {token: head(header.with("crit", []string{})), cause: WrongType},
		"crit is null":          {token: key.sign(t, strings.Replace(header.String(), "{", `{"crit":null,`, 1), good.String()), cause: WrongType},
		"a logout token":        {token: head(header.with("typ", "logout+jwt")), cause: WrongType},
		"a DPoP proof":          {token: head(header.with("typ", "dpop+jwt")), cause: WrongType},
		"typ is a number":       {token: head(header.with("typ", 1)), cause: WrongType},
		"kid is a number":       {token: head(header.with("kid", 1)), cause: Malformed},
		"kid is empty":          {token: head(header.with("kid", "")), cause: Malformed},
		"unknown kid":           {token: head(header.with("kid", "../../etc/passwd")), cause: UnknownKey},
		"kid of another key":    {token: head(header.with("kid", "rsa")), cause: UnknownKey},
		"none":                  {token: base64url([]byte(`{"alg":"none"}`)) + "." + parts[1] + ".", cause: WrongAlgorithm},
		"None":                  {token: base64url([]byte(`{"alg":"None"}`)) + "." + parts[1] + ".", cause: WrongAlgorithm},
		"none with a kid":       {token: base64url([]byte(`{"alg":"none","kid":"ec"}`)) + "." + parts[1] + "." + parts[2], cause: WrongAlgorithm},
		"algorithm is a number": {token: head(header.with("alg", 5)), cause: WrongAlgorithm},
		"HMAC of the public key": {
			token: hmac.sign(t, object{"alg": "HS256", "kid": "rsa"}.String(), good.String()), cause: WrongAlgorithm,
		},
		"PS256":                      {token: pss.token(t, good), cause: WrongAlgorithm},
		"RS512":                      {token: rs512.token(t, good), cause: WrongAlgorithm},
		"ES384":                      {token: wrongCurve.token(t, good), cause: WrongAlgorithm},
		"signed by a stranger":       {token: newECKey(t, "ec", elliptic.P256()).token(t, good), cause: BadSignature},
		"claims of another token":    {token: parts[0] + "." + base64url([]byte(good.with("sub", "root").String())) + "." + parts[2], cause: BadSignature},
		"header of another token":    {token: base64url([]byte(header.with("x", "y").String())) + "." + parts[1] + "." + parts[2], cause: BadSignature},
		"signature of nothing":       {token: parts[0] + "." + parts[1] + "." + base64url(make([]byte, 64)), cause: BadSignature},
		"expired, and by a stranger": {token: newEdKey(t, "ed").token(t, good.with("exp", at(-time.Hour)).with("iat", at(-2*time.Hour))), cause: BadSignature},
	} {
		t.Run(name, func(t *testing.T) {
			for range 2 { // The second answer may be a kept one.
				got, err := f.call(t, row.token)
				if row.cause != "" {
					requireCause(t, row.cause, err)
					require.Zero(t, got)
					continue
				}
				require.NoError(t, err)
				require.Equal(t, row.want, got)
			}
		})
	}
}

// TestRefusalNamesWhoIsProven: the log can say whose token has expired, but not whose token a stranger claims to have.
func TestRefusalNamesWhoIsProven(t *testing.T) {
	f := newFixture(t)
	old := goodClaims().with("exp", at(-time.Hour)).with("iat", at(-2*time.Hour))
	_, err := f.call(t, edKey().token(t, old))
	require.EqualError(t, err, "unauthenticated: expired: jwt:main:alice")
	_, err = f.call(t, newEdKey(t, "ed").token(t, old))
	require.EqualError(t, err, "unauthenticated: bad signature")
	_, err = f.call(t, edKey().token(t, old.with("sub", "a\nb")))
	require.EqualError(t, err, "unauthenticated: claims missing or of the wrong type")
}

// TestTokensEnd: a token that was valid, and is kept, is refused when it ends: not a moment later than one that is not kept.
func TestTokensEnd(t *testing.T) {
	f := newFixture(t)
	token := ecKey().token(t, goodClaims())
	for _, step := range []time.Duration{0, 10*time.Minute + 29*time.Second} {
		f.clock.advance(step)
		_, err := f.call(t, token)
		require.NoError(t, err)
	}
	f.clock.advance(time.Second)
	for range 2 {
		_, err := f.call(t, token)
		requireCause(t, Expired, err)
	}
}

// TestKeyOfATokenWithoutKid: each key of the algorithm is tried, but not so many that a stranger's token costs much.
func TestKeyOfATokenWithoutKid(t *testing.T) {
	keys := make([]signingKey, maxCandidates+1)
	for i := range keys {
		keys[i] = newEdKey(t, "same")
	}
	last := keys[maxCandidates-1]
	f := newFixture(t, keys[:maxCandidates]...)
	for _, header := range []object{last.header(), last.header().with("kid", nil)} {
		got, err := f.call(t, last.sign(t, header.String(), goodClaims().String()))
		require.NoError(t, err)
		require.Equal(t, "jwt:main:alice", got.Name)
	}
	f = newFixture(t, keys...)
	for _, header := range []object{last.header(), last.header().with("kid", nil)} {
		_, err := f.call(t, last.sign(t, header.String(), goodClaims().String()))
		requireCause(t, UnknownKey, err)
	}
}
