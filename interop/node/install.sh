#!/usr/bin/env bash
# Installs what package-lock.json pins beside the build's results, and prints the folder. Asks nobody if it is there.
set -euo pipefail
source=$(cd "$(dirname "$0")" && pwd)
target=${CARGO_TARGET_DIR:-$source/../../target}/interop-node
mkdir -p "$target"
target=$(cd "$target" && pwd)

# Test processes start this at the same time: one installs, the others wait and find everything there.
exec 9>"$target/lock"
flock 9

if [ ! -e "$target/installed" ] || ! cmp --silent "$source/package-lock.json" "$target/installed"; then
    rm -f "$target/installed"
    cp "$source/package.json" "$source/package-lock.json" "$target/"
    (cd "$target" && npm ci --ignore-scripts --no-audit --no-fund --silent >&2)
    cp "$target/package-lock.json" "$target/installed"
fi
echo "$target"
