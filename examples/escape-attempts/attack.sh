#!/bin/sh
# Pushes every file of attempts/ (or those that are named) at main, one by one,
# as a model, and shows what the gate says and what the run record holds. It fails
# if one is published, or if main is not what it was.
set -eu
cd "$(dirname "$0")"
[ $# -gt 0 ] || set -- attempts/*

here=$(git symbolic-ref --short HEAD)
main=$(git ls-remote origin refs/heads/main)
said=$(mktemp)
trap 'rm -f "$said"' EXIT
git fetch -q origin main
for file in "$@"; do
	name=$(basename "$file")
	git switch -q --detach origin/main
	cp "$file" models/
	git add models
	git commit -q -m "Try $name"
	if git push origin HEAD:main 2>"$said"; then
		echo "$name was PUBLISHED"
		exit 1
	fi
	echo "== $name"
	# A graph that cannot be planned has no record of functions, only reasons.
	sed -n 's/^remote: *//; s/ *$//p' "$said" | grep -E '^(model .*FAILED|tried |models/)' || cat "$said"
	run=$(sed -n 's/^remote: headgate: run \([0-9A-Z]*\) .*/\1/p' "$said" | head -n 1)
	git fetch -q origin "refs/runs/$run"
	git show FETCH_HEAD:run.json | sed -n -E 's/^ *"(kind|detail|count)": /   run.json: \1 /p'
done
git switch -q "$here"
[ "$main" = "$(git ls-remote origin refs/heads/main)" ] || { echo "main has moved"; exit 1; }
echo "main is what it was"
