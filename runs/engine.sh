#!/usr/bin/env bash
# Build the native engine of this checkout into the environment of the given Python, where a C++
# compiler is found: an editable installation whose compiled half is of this moment.
set -euo pipefail
python=$1
found=$(command -v "${CXX:-c++}" || true)
MOBILENET_REQUIRE_ENGINE=${found:+1} PATH="$(dirname "$python"):$PATH" \
  "$python" -m pip install --quiet --no-build-isolation --no-deps -e .
