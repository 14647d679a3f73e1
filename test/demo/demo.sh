#!/usr/bin/env bash
# The main job, played with real git commands. Every step checks that it shows
# what it should, and the demo fails loudly if one does not. KEEP=1 leaves the
# server up.
set -euo pipefail

root=$(cd "$(dirname "$0")/../.." && pwd)
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

keep() {
	cat <<-KEPT

		${green}The server is up.${off} To use it:

		  export GIT_SSH_COMMAND="$GIT_SSH_COMMAND"
		  export PATH=$bin:\$PATH
		  cd $dir/flights && git pull origin main
		  git clone $url /tmp/flights
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
url=ssh://127.0.0.1:$port/flights
# The host key is known from the server itself, so nothing is trusted on first use.
printf '[127.0.0.1]:%s %s\n' "$port" "$(field host_key)" >"$HOME/.ssh/known_hosts"
printf '%s\n' "$(field gate_key)" >"$HOME/.ssh/allowed_signers"
ssh_options="-F none -i $HOME/.ssh/id_ed25519 -o IdentitiesOnly=yes -o UserKnownHostsFile=$HOME/.ssh/known_hosts"
export GIT_SSH_COMMAND="ssh $ssh_options"
ask="ssh $ssh_options -p $port 127.0.0.1"
git config --global gpg.ssh.allowedSignersFile "$HOME/.ssh/allowed_signers"
sed '/^First:/,$d' "$dir/banner"
say "ready after $(((ready - started) / 1000000)) ms"

step '(a) The first push: five models and their verifiers run in gVisor sandboxes, then main exists'
cp -r "$root/examples/flights" "$dir/flights"
cd "$dir/flights"
git init -q
run git add -A
run "git commit -q -m 'Flights of January 2001'"
run git remote add origin "$url"
run git push origin HEAD:main
shows 'model +airport_delay'
shows 'model +routes '
shows 'verify +ranking_is_sorted +pass'
shows 'PUBLISHED'
run git pull -q --ff-only origin main
run ls tables
shows route_ranking

step '(b) Somebody adds the busiest route, with a wrong join: each flight counts once for every route of its airport'
before=$(published)
sed -i -e 's/count(\*) AS departures,/&\n    max(r.flights) AS busiest_route,/' -e 's/^JOIN airports.*/&\nJOIN route_stats r ON r.origin = f.origin/' models/airport_delay.sql
run git diff --unified=0 models/airport_delay.sql
run git commit -q -am "'Show the busiest route'"
refused git push origin HEAD:main
shows 'flights_counted_once +FAIL'
shows 'REFUSED'
id=$(run_id)
[ "$(published)" = "$before" ] || fail 'main moved'
say "main is still ${before:0:10}. What was wrong, as rows:"
run git fetch -q origin "refs/runs/$id"
run "git show FETCH_HEAD:failures/flights_counted_once.parquet > ../wrong.parquet"
"$python" -c "import duckdb; duckdb.sql(\"SELECT * FROM '../wrong.parquet' ORDER BY counted - flown DESC LIMIT 4\").show()" | tee "$out"
shows 'counted.*flown'

step '(c) The fix lands; what did not change comes from the cache'
cp "$here/airport_delay.sql" models/airport_delay.sql
run git commit -q -am "'Show the busiest route, each airport once'"
run git push origin HEAD:main
shows 'model +daily_delay .*cached'
shows 'model +airport_delay .* rows, [0-9]'
shows 'PUBLISHED'
run git pull -q --ff-only origin main

step '(d) A model that wants the internet and pip gets neither, and both attempts are on record'
cp "$here/live_weather.py" models/live_weather.py
run git add -A
run git commit -q -m "'Live weather'"
before=$(published)
refused git push origin HEAD:main
shows 'REFUSED'
id=$(run_id)
[ "$(published)" = "$before" ] || fail 'main moved'
run git fetch -q origin "refs/runs/$id"
printf '%s$ git show FETCH_HEAD:run.json%s   (its violations)\n' "$bold" "$off"
git show FETCH_HEAD:run.json | "$python" -c '
import json, sys
for m in json.load(sys.stdin)["models"]:
    for v in m.get("violations", []):
        print("  model %s: %s %s (%d)" % (m["name"], v["kind"], v["detail"], v["count"]))' | tee "$out"
shows 'connect 203\.0\.113\.80:80'
shows 'exec '
run git show FETCH_HEAD:logs/live_weather.log
git reset -q --hard HEAD~1

step '(e) Lineage is git log, and the gate has signed it'
run "git log --first-parent --format='%h %s%n%(trailers:key=Run-Id,key=Pushed-By,key=Model)' -n 1 -- tables/airport_delay | cut -c1-150"
shows 'Model: airport_delay'
run git verify-commit HEAD
shows 'Good "git" signature'
run headgate log -n 1

step '(f) A clone elsewhere reads the new table with DuckDB'
cd "$dir"
run git clone -q "$url" elsewhere
printf '%s$ duckdb: SELECT ... FROM '\''elsewhere/tables/airport_delay/*.parquet'\''%s\n' "$bold" "$off"
"$python" -c "import duckdb; duckdb.sql(\"SELECT iata, city, departures, busiest_route, mean_delay, late_share FROM 'elsewhere/tables/airport_delay/*.parquet' WHERE departures > 1000 ORDER BY late_share DESC LIMIT 5\").show()" | tee "$out"
shows 'busiest_route'

step "Done: (a) to (f) in $((($(date +%s%N) - started) / 1000000000)) s"
