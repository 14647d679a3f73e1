# Sourced by the plays of this directory: a server, a user with a key, and words
# to play with. Every step checks that it shows what it should, and a play fails
# loudly if one does not. KEEP=1 leaves the server up.

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
bin=${HEADGATE_BIN:-$root/bin}
python=${HEADGATE_PYTHON:?set it to a python with duckdb and pyarrow, or run: make demo}
here=$root/test/demo
export PATH=$bin:$PATH

if [ -t 1 ] && [ -z "${NO_COLOR:-}" ]; then
	bold=$'\e[1m' cyan=$'\e[36m' green=$'\e[32m' red=$'\e[31m' dim=$'\e[2m' off=$'\e[0m'
else
	bold='' cyan='' green='' red='' dim='' off=''
fi

dir=$(mktemp -d "${TMPDIR:-/tmp}/headgate-demo.XXXXXX")
server=''
finish() {
	local code=$?
	trap - EXIT INT TERM
	if [ "$code" != 0 ]; then
		printf '\n%sThe demo failed.%s The end of the server'\''s log:\n' "$red" "$off"
		tail -n 20 "$dir/server.log" 2>/dev/null || true
	elif [ -n "${KEEP:-}" ]; then
		keep
		exit 0
	fi
	if [ -n "$server" ]; then
		kill -TERM "$server" 2>/dev/null || true
		wait "$server" 2>/dev/null || true
	fi
	rm -rf "$dir"
	exit "$code"
}
trap finish EXIT
trap 'exit 130' INT TERM

step() { printf '\n%s%s%s\n' "$bold$cyan" "$*" "$off"; }
say() { printf '%s%s%s\n' "$dim" "$*" "$off"; }
fail() { printf '%s%s%s\n' "$red" "$*" "$off" >&2; exit 1; }

out=$dir/out
# run COMMAND: prints it, runs it, and wants it to work. refused COMMAND wants it not to.
run() {
	printf '%s$ %s%s\n' "$bold" "$*" "$off"
	bash -c "$*" >"$out" 2>&1 || { cat "$out"; fail "this should have worked: $*"; }
	cat "$out"
}
refused() {
	printf '%s$ %s%s\n' "$bold" "$*" "$off"
	if bash -c "$*" >"$out" 2>&1; then
		cat "$out"
		fail "this should have been refused: $*"
	fi
	cat "$out"
}
# shows REGEX: the last command's output has it.
shows() { grep -Eq -- "$1" "$out" || fail "the output above does not show: $1"; }
run_id() { grep -Eo 'run [0-9A-HJKMNP-TV-Z]{26}' "$out" | head -n 1 | cut -d ' ' -f 2; }
published() { git ls-remote origin refs/heads/main | cut -f 1; }

# lake EXAMPLE SUBJECT: makes a repository of an example, and goes there.
lake=''
lake() {
	lake=$1
	cp -r "$root/examples/$lake" "$dir/$lake"
	cd "$dir/$lake"
	git init -q
	run git add -A
	run git commit -q -m "'$2'"
	run git remote add origin "$url/$lake"
}

keep() {
	cat <<-KEPT

		${green}The server is up.${off} To use it:

		  export GIT_SSH_COMMAND="$GIT_SSH_COMMAND"
		  export PATH=$bin:\$PATH
		  cd $dir/$lake && git pull origin main
		  git clone $url/$lake /tmp/$lake
		  $ask help

		To end it:  kill $server; rm -rf $dir
	KEPT
}

# --- a server, a key, a lake -------------------------------------------------------

export HOME=$dir/home GIT_CONFIG_NOSYSTEM=1
mkdir -p "$HOME/.ssh"
ssh-keygen -q -t ed25519 -N '' -C ada@demo -f "$HOME/.ssh/id_ed25519"
git config --global user.name Ada
git config --global user.email ada@example.com
git config --global init.defaultBranch main

step 'A server: headgate serve, with this user'\''s own key as administrator'
started=$(date +%s%N)
headgate serve --data "$dir/data" --ssh-addr 127.0.0.1:0 --http-addr 127.0.0.1:0 --python "$python" \
	>"$dir/banner" 2>"$dir/server.log" &
server=$!
until [ -s "$dir/data/server.json" ]; do
	kill -0 "$server" 2>/dev/null || { cat "$dir/server.log"; fail 'the server did not start'; }
	sleep 0.05
done
ready=$(date +%s%N)

field() { "$python" -c 'import json, sys; print(json.load(open(sys.argv[1]))[sys.argv[2]])' "$dir/data/server.json" "$1"; }
port=$(field ssh_addr)
port=${port##*:}
url=ssh://127.0.0.1:$port
# The host key is known from the server itself, so nothing is trusted on first use.
printf '[127.0.0.1]:%s %s\n' "$port" "$(field host_key)" >"$HOME/.ssh/known_hosts"
printf '%s\n' "$(field gate_key)" >"$HOME/.ssh/allowed_signers"
ssh_options="-F none -i $HOME/.ssh/id_ed25519 -o IdentitiesOnly=yes -o UserKnownHostsFile=$HOME/.ssh/known_hosts"
export GIT_SSH_COMMAND="ssh $ssh_options"
ask="ssh $ssh_options -p $port 127.0.0.1"
git config --global gpg.ssh.allowedSignersFile "$HOME/.ssh/allowed_signers"
sed '/^First:/,$d' "$dir/banner"
say "ready after $(((ready - started) / 1000000)) ms"
