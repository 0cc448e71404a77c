#!/bin/sh
# install.sh PACKAGE... installs programs that tests run, unless they are on PATH: redis-server, prometheus, etcd-server,
# valgrind. On Debian and its derivatives it installs the packages, as root or with sudo; elsewhere it prints a hint.
set -eu

# commands PACKAGE prints the commands of a package that tests need.
commands() {
	case $1 in
	redis-server) echo redis-server ;;
	prometheus) echo prometheus promtool ;;
	etcd-server) echo etcd ;;
	valgrind) echo valgrind ;;
	*)
		echo "install.sh: unknown package $1" >&2
		exit 2
		;;
	esac
}

# present PACKAGE succeeds if its commands are on PATH.
present() {
	for command in $(commands "$1"); do
		command -v "$command" > /dev/null || return 1
	done
}

hint() {
	echo "The tests need $package on the PATH: $1" >&2
	exit 1
}

for package; do
	commands "$package" > /dev/null
	present "$package" && continue
	command -v apt-get > /dev/null || hint "install it with your system's package manager."
	if [ "$(id -u)" = 0 ]; then
		sudo=
	elif command -v sudo > /dev/null && sudo -n true 2> /dev/null; then
		sudo=sudo
	else
		hint "run 'sudo apt-get install $package'."
	fi
	echo "installing $package for the tests"
	$sudo apt-get update -q
	# No recommended packages: they include exporters that would run as services.
	DEBIAN_FRONTEND=noninteractive $sudo apt-get install -y -q --no-install-recommends "$package"
	# Tests start their servers themselves, so Debian's service must not run.
	service=${package%-server}
	[ "$package" = redis-server ] && service=redis-server
	if [ "$package" = valgrind ]; then
		: # no service
	elif [ -d /run/systemd/system ]; then
		$sudo systemctl disable --quiet --now "$service"
	elif command -v service > /dev/null; then
		$sudo service "$service" stop > /dev/null 2>&1 || true
	fi
	present "$package" || hint "the package $package does not contain it."
done
