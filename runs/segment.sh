#!/usr/bin/env bash
# The pixels of objects, from data to certificate: LR-ASPP on MobileNetV2 learns ten classes of
# composed scenes and is measured on objects that it has never seen. About 45 minutes on two cores.
# MINUTES (default 25) is the time to learn in.
set -euo pipefail
cd "$(dirname "$0")/.."
out=runs/out/segment
data=runs/out/scenes
minutes=${MINUTES:-25}
mkdir -p "$out"

step() { printf '\n== %s\n' "$*"; }

if [ ! -d "$data" ]; then
  step "composing labelled scenes"
  bash runs/compose.sh
fi

if [ ! -f "$out/run/report.html" ]; then
  step "lraspp_mobilenet_v2 from ImageNet weights learns for $minutes minutes"
  mobilenet train "$data" --out "$out/run" --model lraspp_mobilenet_v2 --size 320 --minutes "$minutes" --resume
fi

LIMIT=200 bash runs/certify.sh "$out" "$data"
