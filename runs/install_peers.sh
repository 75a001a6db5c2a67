#!/usr/bin/env bash
# The runtime that the engine is timed beside and that `pip install -e '.[dev]'` does not bring:
# LiteRT, with the tools that make its files. They are installed without what they ask for: what is
# needed of that is there already, and the rest pins packages that others need newer.
set -euo pipefail
python=$1
if ! "$python" -c "import ai_edge_litert, ai_edge_quantizer, litert_torch" 2>/dev/null; then
  "$python" -m pip install --quiet --no-deps \
    'ai-edge-litert==2.3.*' 'ai-edge-quantizer==0.10.*' 'litert-converter==0.5.*' \
    'litert-torch==0.10.*' jax jaxlib opt_einsum immutabledict torchao
fi
