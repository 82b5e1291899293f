#!/usr/bin/env bash
# Builds the Rust half of the interoperability tests with the system's protoc (scripts/install-test-tools), and prints
# the path of the program.
set -euo pipefail
source=$(cd "$(dirname "$0")" && pwd)
target=${CARGO_TARGET_DIR:-$source/../../target}/interop-rust
mkdir -p "$target"
target=$(cd "$target" && pwd)

# What the workspace's own build must not have.
unset PROTOC
# Cargo itself makes those wait that come at the same time.
cargo build --quiet --locked --manifest-path "$source/Cargo.toml" --target-dir "$target" >&2
echo "$target/debug/waypost-interop"
