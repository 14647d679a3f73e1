#!/bin/sh
# An agent that knows git and nothing else. It was told to bring the lake to numpy 2, in
# the clone that it is in. It proposes, and when it is refused it reads the run's
# record, forks the state that was built, changes what the record complains of, and
# proposes that. What it knows is in diagnose; where an agent of yours asks a model, this
# one has a case statement, so that the story is the same each time. docs/agents.md has
# the same steps for any agent.
set -eu
model=models/delay_by_weekday.py
said=$(mktemp)
trap 'rm -f "$said"' EXIT

say() { printf 'agent: %s\n' "$*"; }

# propose pushes what is committed. When it is refused, run is the id of the run.
propose() {
	say "propose: $(git log -1 --format=%s)"
	if git push origin HEAD:refs/for/main 2>"$said"; then
		sed -n 's/^remote: \(headgate: PUBLISHED.*\)/\1/p' "$said"
		return 0
	fi
	run=$(sed -n 's/^remote: headgate: run \([0-9A-Z]*\) .*/\1/p' "$said" | tail -n 1)
	[ -n "$run" ] || { cat "$said"; exit 1; } # not a verdict on the proposal
	return 1
}

# complaint prints what the record holds against the proposal: its reasons, and the
# names of the files with the rows that verifiers found.
complaint() {
	git fetch -q origin "refs/runs/$run"
	git show FETCH_HEAD:run.json | sed -n '/"reasons": \[/,/\]/p'
	git ls-tree -r --name-only FETCH_HEAD | sed -n '/^failures\//p'
}

# fork goes on from the state as it was built. Its parent is what was proposed.
fork() {
	git fetch -q origin "refs/scratch/$run"
	git switch -q -c "fix-$run" FETCH_HEAD
}

# diagnose changes the files for a complaint, and sets fix to what it did.
diagnose() {
	case $1 in
	*"numpy.dtype size changed"* | *"numpy.core.multiarray failed to import"*)
		# This pandas was built for numpy 1. The first one for numpy 2 is 2.2.2, and pandas 2
		# has no DataFrame.append.
		fix='Take a pandas that is built for numpy 2'
		sed -i -e 's/"pandas": "1[^"]*"/"pandas": "2.2.3"/' \
			-e 's/result.append(day, ignore_index=True)/pd.concat([pd.DataFrame([day])], ignore_index=True)/' "$model"
		;;
	*weekdays_add_up*)
		# Days are missing: concat gives what it is given, and it was given one day.
		fix='Keep the days that are there when one is added'
		sed -i 's/pd.concat(\[pd.DataFrame(\[day\])\]/pd.concat([result, pd.DataFrame([day])]/' "$model"
		;;
	*)
		say 'I do not know what to do about this'
		exit 1
		;;
	esac
}

git switch -q -c numpy-2
sed -i 's/"numpy": "1[^"]*"/"numpy": "2.0.2"/' "$model"
git commit -q -a -m 'Go to numpy 2'
for _ in 1 2 3; do
	if propose; then
		exit 0
	fi
	say "refused by run $run"
	why=$(complaint)
	printf '%s\n' "$why"
	fork
	diagnose "$why"
	git commit -q -a -m "$fix" # nothing to commit means that the same complaint came again
done
say 'I give up'
exit 1
