#!/usr/bin/env bash
# Builds the Go half of the interoperability tests, offline, from the sources that Debian's packages install
# (scripts/install-test-tools), and prints the path of the program.
set -euo pipefail
source=$(cd "$(dirname "$0")" && pwd)
target=${CARGO_TARGET_DIR:-$source/../../target}/interop-go
mkdir -p "$target"
target=$(cd "$target" && pwd)

# Test processes start this at the same time: one builds, the others wait and find everything up to date.
exec 9>"$target/lock"
flock 9

cd "$source"
GO111MODULE=off GOPATH=/usr/share/gocode GOFLAGS= CGO_ENABLED=0 go build -o "$target/waypost-interop" . >&2
echo "$target/waypost-interop"
