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

step "what it is worth on objects that it has never seen, and what it finds on three pictures"
mobilenet evaluate "$out/run" "$data"
mapfile -t pictures < <(find "$data/images" -path '*test*' -name '*.jpg' | sort | head -3)
mobilenet predict "$out/run" "${pictures[@]}" --save "$out/drawn"

step "int8: calibrated, measured by the same metric, repaired as far as it needs"
mobilenet quantize "$out/run" "$data" --out "$out/int8" --max-drop 1 --limit 200

step "exported in float32 and in int8, each file measured by its own runtime"
for run in run int8; do
  for target in engine onnx; do
    mobilenet export "$out/$run" --to $target --out "$out/$run-$target"
    mobilenet verify "$out/$run-$target" "$data" --max-drop 1 --limit 200
  done
done

step "how fast, decoding included, beside other runtimes"
mobilenet benchmark "$out/run"
mobilenet benchmark "$out/int8" --precision int8

step "the report: $out/run/report.html, the certificates: $out/*/certificate.json"
