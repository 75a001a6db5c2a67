#!/usr/bin/env bash
# Every figure this project states about speed, measured here and now: about 25 minutes on two
# quiet cores. Ratios are of runs in turns; conditions are printed with them. What is given goes to
# benchmarks/engine.py: `bash runs/bench.sh --model mobilenet_v2` times the engine on that one only.
set -euo pipefail
cd "$(dirname "$0")/.."
[ -d .cache/data ] && export MOBILENET_DATA="$PWD/.cache/data"

step() { printf '\n== %s\n' "$*"; }

step "start-up of the package and of the command"
python benchmarks/import_time.py

step "input pipeline beside torchvision's"
python benchmarks/input_pipeline.py

step "the engine beside other runtimes: docs/benchmarks.md"
bash runs/install_peers.sh "$(command -v python)" || echo "LiteRT cannot be had: it is left out"
python benchmarks/engine.py "$@"

step "fine-tuning on all of Fashion-MNIST in 2.5 and 5 minutes"
python benchmarks/finetune.py
