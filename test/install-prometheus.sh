#!/bin/sh
# Makes sure that prometheus and promtool are there for the tests. Debian and its kin install them, as root or with sudo;
# elsewhere a hint tells what to do.
set -eu

present() {
	command -v prometheus > /dev/null && command -v promtool > /dev/null
}

present && exit 0

hint() {
	echo "The tests need prometheus and promtool (2.42 or later) on the PATH: $1" >&2
	exit 1
}

command -v apt-get > /dev/null || hint "install them with your system's package manager."
if [ "$(id -u)" = 0 ]; then
	sudo=
elif command -v sudo > /dev/null && sudo -n true 2> /dev/null; then
	sudo=sudo
else
	hint "run 'sudo apt-get install prometheus'."
fi

echo "installing prometheus for the tests"
$sudo apt-get update -q
# Without what it recommends: no exporter of this machine.
DEBIAN_FRONTEND=noninteractive $sudo apt-get install -y -q --no-install-recommends prometheus
# The tests start servers of their own: what Debian has started is stopped, and stays off.
if [ -d /run/systemd/system ]; then
	$sudo systemctl disable --quiet --now prometheus
elif command -v service > /dev/null; then
	$sudo service prometheus stop > /dev/null 2>&1 || true
fi
present || hint "the package prometheus did not bring them."
