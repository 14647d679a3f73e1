#!/usr/bin/env bash
# A push that an upgrade of a package broke, healed by a scripted agent that knows only git.
set -euo pipefail
# shellcheck source=test/demo/stage.sh
. "$(dirname "$0")/stage.sh"

step '(a) The flights, with a model that was written for pandas 1 and numpy 1'
lake=flights
"$root/examples/self-healing/setup.sh" "$dir/$lake"
cd "$dir/$lake"
git init -q
run git add -A
run git commit -q -m "'Flights'"
run git remote add origin "$url/$lake"
run git push origin HEAD:main
shows 'env .*numpy 1\.26\.4'
shows 'verify +weekdays_add_up +pass'
run git pull -q --ff-only origin main
before=$(published)

step '(b) An agent is to bring it to numpy 2. It breaks it, reads why, forks what was built, is refused by a verifier, and lands'
run "$root/examples/self-healing/agent.sh"
shows 'model delay_by_weekday: .*numpy'
shows 'verifier weekdays_add_up: 6 violating'
shows 'headgate: PUBLISHED'

step '(c) Main was the state before, and is the state after; the table is the same'
run git fetch -q origin main
[ "$(git rev-parse FETCH_HEAD^1)" = "$before" ] || fail 'main was something in between'
run git log --oneline --graph FETCH_HEAD
run git diff --stat --exit-code "$before" FETCH_HEAD -- tables
run "$ask run ls flights"
shows 'rejected'

step "Done: (a) to (c) in $((($(date +%s%N) - started) / 1000000000)) s"
