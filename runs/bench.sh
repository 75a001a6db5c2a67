#!/usr/bin/env bash
# Every figure this project states about speed, measured here and now: about 20 minutes on two
# quiet cores. Ratios are of runs in turns; conditions are printed with them.
set -euo pipefail
cd "$(dirname "$0")/.."
[ -d .cache/data ] && export MOBILENET_DATA="$PWD/.cache/data"

step() { printf '\n== %s\n' "$*"; }

step "start-up of the package and of the command"
python benchmarks/import_time.py

step "input pipeline beside torchvision's"
python benchmarks/input_pipeline.py

step "inference beside other runtimes, one thread, 224 pixels"
for model in mobilenet_v1 mobilenet_v2 mobilenet_v3_large mobilenet_v3_small; do
  mobilenet benchmark "$model"
done

step "fine-tuning on all of Fashion-MNIST in 2.5 and 5 minutes"
python benchmarks/finetune.py
