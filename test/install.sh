#!/bin/sh
# install.sh PACKAGE... installs the servers and tools that tests start: redis-server, prometheus, etcd-server, valgrind.
# It uses apt-get as root or with sudo; without apt-get it prints what to install.
set -eu

# commands PACKAGE prints the commands of the package that the tests use.
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

# present PACKAGE succeeds if all its commands are on the PATH.
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
	# Without recommended packages: prometheus recommends its node exporter.
	DEBIAN_FRONTEND=noninteractive $sudo apt-get install -y -q --no-install-recommends "$package"
	# The tests start their own servers: stop and disable the service that the package has started.
	service=${package%-server}
	[ "$package" = redis-server ] && service=redis-server
	if [ "$package" = valgrind ]; then
		: # no service
	elif [ -d /run/systemd/system ]; then
		$sudo systemctl disable --quiet --now "$service"
	elif command -v service > /dev/null; then
		$sudo service "$service" stop > /dev/null 2>&1 || true
	fi
	present "$package" || hint "the package $package did not install it."
done
