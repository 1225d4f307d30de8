#!/usr/bin/env bash
# Writes each image's bill of materials (CycloneDX, JSON) from its lock: deploy/sbom.sh FOLDER
set -euo pipefail
folder=$(realpath --canonicalize-missing "${1:?name a folder}")
cd "$(dirname "${BASH_SOURCE[0]}")/.."
mkdir -p "$folder"
while read -r image lock; do
    PYTHONWARNINGS=ignore "${PYTHON:-.venv/bin/python}" -m uv tool run --quiet --from cyclonedx-bom==7.5.0 cyclonedx-py requirements \
        --pyproject pyproject.toml --output-reproducible --output-file "$folder/$image.cdx.json" "requirements/$lock.lock"
done <<<$'serve serve\nupdater stream\nnight night'
