#!/bin/sh
# Makes the lake of this story in a directory that is not there yet: examples/flights
# with one more model, which was written for pandas 1, and one more verifier.
#
#   setup.sh DIRECTORY
set -eu
here=$(cd "$(dirname "$0")" && pwd)
cp -r "$here/../flights" "$1"
cp -r "$here/lake/." "$1"
cat >>"$1/headgate.yaml" <<'YAML'

python:
  packages: {allow: [numpy, pandas, pyarrow]}
YAML
