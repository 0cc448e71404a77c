#!/bin/sh
# Makes sure that redis-server is there for the tests. Debian and its kin install it, as root or with sudo; elsewhere a
# hint tells what to do.
set -eu

command -v redis-server > /dev/null && exit 0

hint() {
	echo "The tests need redis-server (7.0 or later) on the PATH: $1" >&2
	exit 1
}

command -v apt-get > /dev/null || hint "install it with your system's package manager."
if [ "$(id -u)" = 0 ]; then
	sudo=
elif command -v sudo > /dev/null && sudo -n true 2> /dev/null; then
	sudo=sudo
else
	hint "run 'sudo apt-get install redis-server'."
fi

echo "installing redis-server for the tests"
$sudo apt-get update -q
# The tests start servers of their own: Debian's service must not start one, and stays off.
DEBIAN_FRONTEND=noninteractive $sudo apt-get install -y -q --no-install-recommends redis-server
command -v redis-server > /dev/null || hint "the package redis-server did not bring it."
