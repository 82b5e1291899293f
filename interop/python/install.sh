#!/usr/bin/env bash
# Installs what requirements.txt pins into the project's .venv, and prints its Python. Asks nobody if it is there.
set -euo pipefail
source=$(cd "$(dirname "$0")" && pwd)
venv=$(cd "$source/../../.venv" && pwd -P)

exec 9>"$venv/lock"
flock 9

if [ ! -e "$venv/installed" ] || ! cmp --silent "$source/requirements.txt" "$venv/installed"; then
    rm -f "$venv/installed"
    "$venv/bin/pip" install --quiet --disable-pip-version-check --requirement "$source/requirements.txt" >&2
    cp "$source/requirements.txt" "$venv/installed"
fi
echo "$venv/bin/python"
