#!/usr/bin/env bash
# Sets up .venv with the server and the tools of development. Run by make; a second run does nothing.
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-python3}

fail() { echo "setup: $1" >&2; exit 1; }

"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null ||
  fail "Holdfast needs Python 3.11 or newer; set PYTHON to one (make PYTHON=python3.12 ...)"
engine=$("$python" -c 'import tomllib; p = tomllib.load(open("pyproject.toml", "rb"))["project"]
print(next(r for r in p["optional-dependencies"]["server"] if r.startswith("llama-cpp-python")))')

[ -x .venv/bin/python ] || "$python" -m venv .venv
.venv/bin/pip install --quiet --upgrade "pip>=25.1"

# Prints how far the build of llama.cpp is; the rest of pip's output goes to a log.
progress() {
  awk -v log_file=.venv/build.log '
    { print > log_file }
    match($0, /\[ *[0-9]+\/[0-9]+\]/) {
      split(substr($0, RSTART + 1, RLENGTH - 2), at, "/")
      percent = int(100 * at[1] / at[2] / 5) * 5
      if (percent > shown) { shown = percent; printf "setup: building llama.cpp %d%%\n", percent; fflush() }
    }'
}

if ! .venv/bin/pip show --quiet llama-cpp-python 2>/dev/null; then
  echo "setup: installing $engine. Without a cached wheel it is built from source now: about 6 minutes"
  echo "setup: on 2 cores, once per machine (pip keeps the wheel)."
  .venv/bin/pip install --verbose "$engine" 2>&1 | progress ||
    fail "llama.cpp did not build; it needs a C++ compiler and CMake. The log is .venv/build.log"
fi
echo "setup: installing Holdfast and its tools into .venv"
.venv/bin/pip install --quiet --editable ".[server]" --group dev
touch .venv/ready
