#!/usr/bin/env bash
# need.sh PROGRAM: the program (or the Python library of the system's own Python) is there, or is installed, or it is said what to do.
set -euo pipefail

program=$1
case $program in
git) package=git ;;
ssh | ssh-keygen) package=openssh-client ;;
gcc) package=gcc ;;
g++) package=g++ ;;
python3) package="python3 python3-venv" ;;
dulwich | pygit2) package=python3-$program ;;
javac) package=default-jdk-headless ;;
mvn) package=maven ;;
*) echo "need.sh: no package is known for $program" >&2; exit 2 ;;
esac

present() {
	case $program in dulwich | pygit2)
		/usr/bin/python3 -c "import $program"
		return
		;;
	esac
	command -v "$program" >/dev/null || return 1
	# Debian splits venv off; a python3 without it cannot make one.
	[ "$program" != python3 ] || python3 -c 'import ensurepip, venv'
}

present 2>/dev/null && exit 0
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
	echo "installing $package" >&2
	export DEBIAN_FRONTEND=noninteractive
	# shellcheck disable=SC2086  # a package list is words
	apt-get install -qq -y $package >/dev/null 2>&1 || {
		apt-get update -qq
		apt-get install -qq -y $package >/dev/null
	}
	present && exit 0
fi
echo "$program is missing: install the package $package, then run make again" >&2
exit 1
