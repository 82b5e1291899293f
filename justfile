# What CI runs, and what it is made of. `just` lists it.

default:
    @just --list

# Everything: what CI runs.
test:
    scripts/test

# Format and lints only.
check:
    cargo fmt --all -- --check
    cargo clippy --workspace --all-targets -- -D warnings

# Regenerate the code of the wire protocols from the .proto files.
generate:
    cargo run -p waypost-proto-codegen

# The main job in real processes: `just demo --endpoints http://127.0.0.1:2379`.
demo *ARGS:
    cargo run --release -p waypost-cli -- demo {{ARGS}}

# Registration and discovery beside the bare protocol, on a real etcd. Prints one line `figure …` for each goal.
bench-discovery *ARGS:
    scripts/install-test-tools
    cargo run --release -p waypost-bench --bin bench-discovery -- {{ARGS}}

# The channel beside tonic, tower and grpc-go: `just bench-channel picks` for one group of figures.
bench-channel *ARGS:
    scripts/install-test-tools
    cargo run --release -p waypost-bench --bin bench-channel -- {{ARGS}}

# The policies in virtual time: the tables and the plot of docs/balancing.md.
simulate-balancing *ARGS:
    cargo run --release -p waypost-simulation --bin simulate-balancing -- {{ARGS}}

# The embedded server beside etcd 3.5, with one line `figure …` for each goal; `--quick` for a first look.
bench-embed *ARGS:
    scripts/install-test-tools
    cargo build --release -p waypost-cli -p waypost-bench
    target/release/bench-embed {{ARGS}}

# Each fuzz target for SECONDS.
fuzz SECONDS="10":
    scripts/fuzz-briefly {{SECONDS}}

# Licences, advisories and duplicate dependencies (needs cargo-deny).
deny:
    cargo deny check

# Each feature alone (needs cargo-hack).
features:
    cargo hack check --workspace --each-feature --no-dev-deps
