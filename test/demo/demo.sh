#!/usr/bin/env bash
# The main job, played with real git commands.
set -euo pipefail
# shellcheck source=test/demo/stage.sh
. "$(dirname "$0")/stage.sh"

step '(a) The first push: five models and their verifiers run in gVisor sandboxes, then main exists'
lake flights 'Flights of January 2001'
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
run git clone -q "$url/$lake" elsewhere
printf '%s$ duckdb: SELECT ... FROM '\''elsewhere/tables/airport_delay/*.parquet'\''%s\n' "$bold" "$off"
"$python" -c "import duckdb; duckdb.sql(\"SELECT iata, city, departures, busiest_route, mean_delay, late_share FROM 'elsewhere/tables/airport_delay/*.parquet' WHERE departures > 1000 ORDER BY late_share DESC LIMIT 5\").show()" | tee "$out"
shows 'busiest_route'

step "Done: (a) to (f) in $((($(date +%s%N) - started) / 1000000000)) s"
