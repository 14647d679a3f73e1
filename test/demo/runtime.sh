#!/usr/bin/env bash
# What functions run in, played with real git commands: two versions of a library in
# one pipeline, attempts to get out, and a publication that is computed again.
set -euo pipefail
# shellcheck source=test/demo/stage.sh
. "$(dirname "$0")/stage.sh"

step '(a) One pipeline, two versions of pandas: each function has an environment of its own'
lake dependency-conflict 'Two versions of pandas'
run "grep -n 'pip=' models/*.py"
run git push origin HEAD:main
shows 'env .*pandas 1\.5\.3'
shows 'env .*pandas 2\.'
shows 'PUBLISHED'

step '(b) The gate locked what it found; the next push resolves and downloads nothing'
run git pull -q --ff-only origin main
run "grep -c '^name = ' headgate.lock"
run git commit -q --allow-empty -m "'Nothing new'"
run git push -o no-cache origin HEAD:main
shows 'PUBLISHED'
if grep -q 'downloaded' "$out"; then fail 'something was downloaded again'; fi

step '(c) The gate commit says what each table came from; from that alone it is computed again, to the same oids'
run git pull -q --ff-only origin main
run "git log --first-parent -n 1 --format='%(trailers:key=Model)' | cut -c1-150"
run headgate replay HEAD --python "$python" --verify --gate-key "$HOME/.ssh/allowed_signers"
shows 'equal'

step '(d) A lake whose models try to get out: each attempt is refused, on record, and main stays'
lake escape-attempts 'Readings'
run git push -q origin HEAD:main
run git pull -q --ff-only origin main
run ./attack.sh
shows 'tried to connect to 203\.0\.113\.[0-9]+:443 \(blocked\)'
shows 'pip_install.py'
shows 'main is what it was'
kill -0 "$server" || fail 'the server is gone'

step "Done: (a) to (d) in $((($(date +%s%N) - started) / 1000000000)) s"
