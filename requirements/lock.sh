#!/usr/bin/env bash
# Writes all locks anew from requirements/*.in, with hashes, for Linux and macOS on Python 3.11 and 3.12. Versions stay
# as they are in requirements.lock unless a list asks for others; --upgrade takes the newest. A lock is a whole
# environment: it is installed with --no-deps, since those of the day leave out what day.override names.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
python=${PYTHON:-$PWD/.venv/bin/python}
compile() {
    "$python" -m uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
        --no-annotate --no-header "$@" >/dev/null
}
cd requirements
compile ./*.in --output-file ../requirements.lock ${1:+"$1"}
compile day.in serve.in --override day.override --constraint ../requirements.lock --output-file serve.lock
compile day.in serve.in play.in --override day.override --constraint ../requirements.lock --output-file play.lock
compile day.in serve.in otel.in --override day.override --constraint ../requirements.lock --output-file otel.lock
compile day.in stream.in --override day.override --constraint ../requirements.lock --output-file stream.lock
compile day.in serve.in night.in --override night.override --constraint ../requirements.lock --output-file night.lock
compile day.in serve.in night.in gpu.in --constraint ../requirements.lock --output-file gpu.lock
compile day.in serve.in night.in evidence.in --constraint ../requirements.lock --output-file evidence.lock
compile dev.in --constraint ../requirements.lock --output-file dev.lock
