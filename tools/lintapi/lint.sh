#!/bin/sh
# lint.sh FILE checks an OpenAPI document with the recommended rules of redocly and spectral. A warning fails it, too. The linters are
# installed by npm, in the versions of package-lock.json; without npm, its registry and Node.js 20.19 or later nothing is checked, and it
# says so.
set -eu

recent='const [major, minor] = process.versions.node.split("."); process.exit(major * 100 + +minor < 2019 ? 1 : 0)'
if ! command -v npm > /dev/null || ! node -e "$recent"; then
	echo "lint-api: $1 is not checked: that needs npm, and Node.js 20.19 or later" >&2
	exit 0
fi
here=$(dirname "$0")
# The name begins with a dot, so that Go does not take the modules for packages of podlink.
installed=$here/../../bin/.lintapi
mkdir -p "$installed"
if ! cmp -s "$here/package-lock.json" "$installed/installed.json"; then
	cp "$here/package.json" "$here/package-lock.json" "$installed"
	if ! npm ci --prefix "$installed" --ignore-scripts --no-audit --no-fund --loglevel=error; then
		if npm view @redocly/cli version > /dev/null 2>&1; then
			exit 1 # The registry is there: package-lock.json is at fault.
		fi
		echo "lint-api: $1 is not checked: npm can't reach its registry" >&2
		exit 0
	fi
	cp "$here/package-lock.json" "$installed/installed.json"
fi
# Neither linter may report anything about this machine.
export REDOCLY_TELEMETRY=off REDOCLY_SUPPRESS_UPDATE_NOTICE=true SCARF_ANALYTICS=false
"$installed/node_modules/.bin/redocly" lint --extends recommended-strict --max-problems 1000 "$1"
"$installed/node_modules/.bin/spectral" lint --ruleset "$here/spectral.yaml" --fail-severity warn "$1"
