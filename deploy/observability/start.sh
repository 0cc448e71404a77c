#!/usr/bin/env bash
# Shows the metrics of a running podlink: starts a Prometheus that scrapes it, and prints the main queries. See README.md.
set -euo pipefail

usage() {
	cat <<'USAGE'
usage: start.sh [--once] [--admin HOST:PORT] [--help]

Starts Prometheus with podlink's rules and alerts against a running podlink, prints the results of the main queries, and
runs until Ctrl-C. Also starts Grafana with podlink's dashboard and an OpenTelemetry collector, if they are installed. All
of them listen on 127.0.0.1 and keep their data in a temporary folder, which is removed at the end.

  --once              end after printing
  --admin HOST:PORT   podlink's admin listener, as in server.admin.addr (default 127.0.0.1:8001)
  --help              print this

environment:
  PODLINK_SERVER_ADMIN_ADDR   as --admin, which overrides it
  PROMETHEUS_PORT             default 9090
  OTLP_PORT                   of the collector, default 4317
  GRAFANA_PORT                default 3000
  GRAFANA_HOME                Grafana's folder, the one with conf/defaults.ini, if it is not found

exit code: 0 on success, 1 when a program is missing or does not start, 2 for a wrong argument
USAGE
}

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
deploy=$(dirname "$here")
wait_seconds=60 # timeout for the start of each program
samples=5       # scrapes to wait for, one each 5 s: enough to fill the window
window=20s      # of the printed rates

# --- messages ---------------------------------------------------------------------------------------------------------

say() {
	echo "$*" >&2
}

die() {
	say "start.sh: $*"
	exit 1
}

wrong() {
	say "start.sh: $*"
	usage >&2
	exit 2
}

# log_end NAME prints the end of a program's log.
log_end() {
	say "the end of its log:"
	tail -n 20 "$work/$1.log" | sed 's/^/  /' >&2
}

# --- arguments --------------------------------------------------------------------------------------------------------

once=false
admin=${PODLINK_SERVER_ADMIN_ADDR:-127.0.0.1:8001}
while [ $# -gt 0 ]; do
	case $1 in
	--once) once=true ;;
	--admin)
		[ $# -ge 2 ] || wrong "--admin needs HOST:PORT"
		admin=$2
		shift
		;;
	--help | -h)
		usage
		exit 0
		;;
	*) wrong "unknown argument: $1" ;;
	esac
	shift
done

# It is used in a sed command and a URL below, so it must be a host and a port only.
[[ $admin =~ ^([A-Za-z0-9._-]+|\[[0-9A-Fa-f:]+\]):[0-9]{1,5}$ ]] || wrong "not HOST:PORT: $admin"

# port NAME DEFAULT prints the port in the environment variable NAME, or the default.
port() {
	local value=${!1:-$2}
	if ! [[ $value =~ ^[1-9][0-9]{0,4}$ ]] || [ "$value" -gt 65535 ]; then
		wrong "$1 is not a port: $value"
	fi
	echo "$value"
}

prometheus_port=$(port PROMETHEUS_PORT 9090)
otlp_port=$(port OTLP_PORT 4317)
grafana_port=$(port GRAFANA_PORT 3000)
prometheus_url=http://127.0.0.1:$prometheus_port
grafana_url=http://127.0.0.1:$grafana_port

# --- requirements -----------------------------------------------------------------------------------------------------

# first_of NAME... prints the path of the first command that is installed.
first_of() {
	local name
	for name in "$@"; do
		command -v "$name" && return
	done
	return 1
}

for command in prometheus promtool; do
	first_of "$command" > /dev/null ||
		die "$command is not installed. On Debian and its derivatives: run test/install.sh prometheus"
done
first_of curl > /dev/null || die "curl is not installed"

metrics=$(curl -fsS --max-time 5 "http://$admin/metrics") ||
	die "podlink does not answer on http://$admin/metrics. Start it (make run), or give its address: --admin HOST:PORT"
[[ $metrics == *podlink_build_info* ]] || die "the server on http://$admin/metrics is not podlink"

# --- start and stop ---------------------------------------------------------------------------------------------------

work=$(mktemp -d "${TMPDIR:-/tmp}/podlink-observability.XXXXXX")
declare -A pids=()

# shellcheck disable=SC2317 # the trap calls it
stop_all() {
	local code=$? pid name alive
	trap - EXIT
	trap '' INT TERM HUP # A second Ctrl-C must not leave anything behind.
	for pid in "${pids[@]}"; do
		kill "$pid" 2> /dev/null || true
	done
	for _ in {1..100}; do
		alive=false
		for pid in "${pids[@]}"; do
			kill -0 "$pid" 2> /dev/null && alive=true
		done
		"$alive" || break
		sleep 0.1
	done
	for name in "${!pids[@]}"; do
		kill -KILL "${pids[$name]}" 2> /dev/null && say "$name did not stop within 10 s and was killed"
	done
	wait 2> /dev/null
	rm -rf "$work"
	exit "$code"
}
trap stop_all EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM

# listens PORT succeeds if a server listens on that port of loopback.
listens() {
	(exec 3<> "/dev/tcp/127.0.0.1/$1") 2> /dev/null
}

# need_port PORT NAME fails if the port is in use: another server must not be mistaken for the one that is started here.
need_port() {
	! listens "$1" || die "port $1 is in use; choose another one with $2"
}

# start NAME COMMAND... starts a program in the background, with its output in a file.
start() {
	local name=$1
	shift
	"$@" > "$work/$name.log" 2>&1 < /dev/null &
	pids[$name]=$!
}

# wait_for NAME WHAT COMMAND... waits until the command succeeds, and fails when the program NAME ends before.
wait_for() {
	local name=$1 what=$2 end=$((SECONDS + wait_seconds))
	shift 2
	until "$@" > /dev/null 2>&1; do
		if ! kill -0 "${pids[$name]}" 2> /dev/null; then
			say "start.sh: $name ended before $what"
			log_end "$name"
			exit 1
		fi
		if [ "$SECONDS" -ge "$end" ]; then
			say "start.sh: timeout of $wait_seconds s: $what"
			log_end "$name"
			exit 1
		fi
		sleep 0.5
	done
}

# --- Prometheus -------------------------------------------------------------------------------------------------------

# The same folders as in the repository, so that the relative paths of prometheus.yml are valid.
mkdir "$work/observability"
ln -s "$deploy/prometheus" "$work/prometheus"
sed "s|127\.0\.0\.1:8001|$admin|" "$here/prometheus.yml" > "$work/observability/prometheus.yml"

# query EXPRESSION prints lines of LABELS => VALUE @[TIME].
query() {
	promtool query instant "$prometheus_url" "$1"
}

# shellcheck disable=SC2317 # wait_for calls it
scraped() {
	local up='up{job="podlink"}'
	[ -n "$(query "min($up) == 1 and min(count_over_time(${up}[2m])) >= $samples")" ]
}

need_port "$prometheus_port" PROMETHEUS_PORT
start prometheus prometheus --config.file="$work/observability/prometheus.yml" --storage.tsdb.path="$work/tsdb" \
	--web.listen-address="127.0.0.1:$prometheus_port" --enable-feature=exemplar-storage --log.level=warn
wait_for prometheus "Prometheus is ready" curl -fs --max-time 5 "$prometheus_url/-/ready"

# --- the OpenTelemetry collector, if there is one ---------------------------------------------------------------------

if collector=$(first_of otelcol otelcol-contrib); then
	need_port "$otlp_port" OTLP_PORT
	sed "s|127\.0\.0\.1:4317|127.0.0.1:$otlp_port|" "$here/otel-collector.yaml" > "$work/otel-collector.yaml"
	start collector "$collector" --config "$work/otel-collector.yaml"
	wait_for collector "the collector listens" listens "$otlp_port"
else
	say "skipped the OpenTelemetry collector: neither otelcol nor otelcol-contrib is installed"
fi

# --- Grafana, if there is one -----------------------------------------------------------------------------------------

# grafana_home BINARY prints Grafana's installation folder.
grafana_home() {
	local folder
	for folder in "${GRAFANA_HOME:-}" "$(dirname "$(dirname "$(readlink -f "$1")")")" /usr/share/grafana; do
		[ -n "$folder" ] && [ -f "$folder/conf/defaults.ini" ] && echo "$folder" && return
	done
	return 1
}

# No login: it listens on loopback only, and its data is removed at the end.
start_grafana() {
	local server=("$1")
	[ "$(basename "$1")" = grafana-server ] || server+=(server)
	mkdir -p "$work/grafana/provisioning/datasources" "$work/grafana/provisioning/dashboards"
	sed "s|127\.0\.0\.1:9090|127.0.0.1:$prometheus_port|" "$here/grafana/datasources.yaml" \
		> "$work/grafana/provisioning/datasources/datasources.yaml"
	cp "$here/grafana/dashboards.yaml" "$work/grafana/provisioning/dashboards/"
	PODLINK_DASHBOARDS=$deploy/grafana \
		GF_SERVER_HTTP_ADDR=127.0.0.1 GF_SERVER_HTTP_PORT=$grafana_port \
		GF_PATHS_DATA=$work/grafana/data GF_PATHS_LOGS=$work/grafana/logs GF_PATHS_PLUGINS=$work/grafana/plugins \
		GF_PATHS_PROVISIONING=$work/grafana/provisioning \
		GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH=$deploy/grafana/podlink.json \
		GF_AUTH_ANONYMOUS_ENABLED=true GF_AUTH_ANONYMOUS_ORG_ROLE=Editor GF_AUTH_DISABLE_LOGIN_FORM=true \
		GF_AUTH_BASIC_ENABLED=false GF_SECURITY_DISABLE_INITIAL_ADMIN_CREATION=true \
		GF_ANALYTICS_REPORTING_ENABLED=false GF_ANALYTICS_CHECK_FOR_UPDATES=false \
		GF_ANALYTICS_CHECK_FOR_PLUGIN_UPDATES=false GF_NEWS_NEWS_FEED_ENABLED=false \
		GF_PLUGINS_PREINSTALL_DISABLED=true \
		start grafana "${server[@]}" --homepath "$2"
	wait_for grafana "Grafana is ready" curl -fs --max-time 5 "$grafana_url/api/health"
}

if grafana=$(first_of grafana-server grafana); then
	if home=$(grafana_home "$grafana"); then
		need_port "$grafana_port" GRAFANA_PORT
		start_grafana "$grafana" "$home"
	else
		say "skipped Grafana: its folder with conf/defaults.ini was not found; set GRAFANA_HOME"
	fi
else
	say "skipped Grafana: neither grafana-server nor grafana is installed"
fi

# --- the table --------------------------------------------------------------------------------------------------------

say "waiting for $samples scrapes of http://$admin/metrics"
wait_for prometheus "Prometheus has scraped podlink $samples times" scraped

# show TITLE FORMAT EMPTY EXPRESSION prints a section of the table: a line for each result, the highest value first, with
# its label values. FORMAT: rate, ratio, seconds, count, yesno. EMPTY: the line to print without a result.
show() {
	local title=$1 format=$2 empty=$3 result
	result=$(query "$4") || die "Prometheus does not answer the query: $4"
	printf '\n%s\n' "$title"
	if [ -z "$result" ]; then
		printf '  %s\n' "$empty"
		return
	fi
	# {operation="SetLinkedPod"} => 1.5 @[1795408649.067] becomes 1.5, a tab, SetLinkedPod.
	sed -E 's/^(.*) => ([^ ]+) @\[.*$/\2\t\1/; s/\{\}//; s/[A-Za-z_]*[{]//; s/\}$//; s/(, )?[a-z_]+="([^"]*)"/\2 /g' \
		<<< "$result" | sort -t $'\t' -k 1,1gr -k 2,2 | awk -F '\t' -v format="$format" '
		{
			name = $2; sub(/ +$/, "", name)
			if ($1 == "NaN") value = "no data"
			else if (format == "rate") value = sprintf("%.2f /s", $1)
			else if (format == "ratio") value = sprintf("%.3f %%", $1 * 100)
			else if (format == "seconds") value = sprintf("%.2f ms", $1 * 1000)
			else if (format == "yesno") value = $1 == 1 ? "yes" : "NO"
			else value = sprintf("%d", $1)
			if (name == "") printf "  %s\n", value
			else printf "  %-40s %14s\n", name, value
		}'
}

# by_operation EXPRESSION prints the expression with the operation's short name.
by_operation() {
	echo "label_replace($1, \"operation\", \"\$1\", \"operation\", \".*/(.*)\")"
}

table() {
	local job='job="podlink"'
	local requests="sum(rate(server_requests_code_total{$job}[$window]))"
	local failed="sum(rate(server_requests_code_total{$job,code=~\"5..\",reason!~\"NO_AVAILABLE_POD|INDEX_DISABLED\"}[$window]))"

	echo "podlink on $admin; rates and latencies are those of the last ${window%s} s"
	show "requests per second, by operation" rate "no requests" \
		"$(by_operation "sum by (operation) (rate(server_requests_code_total{$job}[$window])) > 0")"
	show "error ratio, without NO_AVAILABLE_POD" ratio "no requests" \
		"($failed or 0 * $requests) / ($requests > 0)"
	show "p99 latency, by operation" seconds "no requests" \
		"$(by_operation "histogram_quantile(0.99,
			sum by (operation, le) (rate(server_requests_seconds_bucket{$job}[$window]))) >= 0")"
	show "store ready" yesno "no data" "min(podlink_store_ready{$job})"
	show "links by outcome, since podlink started" count "no data" \
		"sum by (outcome) (podlink_links_total{$job})"
	show "pods by state" count "no data" "max by (state) (podlink_pods{$job})"
	show "alerts; most fire only after minutes" count "none" \
		"count by (alertname, severity, alertstate) (ALERTS)"
}

table

# --- stay -------------------------------------------------------------------------------------------------------------

if "$once"; then
	exit 0
fi

echo
echo "Prometheus   $prometheus_url"
[ -z "${pids[grafana]:-}" ] || echo "Grafana      $grafana_url"
[ -z "${pids[collector]:-}" ] ||
	echo "collector    start podlink with PODLINK_TRACE_ENDPOINT=127.0.0.1:$otlp_port; the spans: $work/collector.log"
echo "Ctrl-C ends it."

# A program that ends now has failed.
wait -n || true
for name in "${!pids[@]}"; do
	if ! kill -0 "${pids[$name]}" 2> /dev/null; then
		say "start.sh: $name ended"
		log_end "$name"
	fi
done
exit 1
