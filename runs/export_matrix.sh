#!/usr/bin/env bash
# Every export target that is installed x network x width x size, measured in the file's own runtime;
# the table goes into docs/export.md. An interrupted run goes on where it stopped.
set -euo pipefail
cd "$(dirname "$0")/.."
OMP_NUM_THREADS=1 python benchmarks/export_matrix.py --page docs/export.md
