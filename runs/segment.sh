#!/usr/bin/env bash
# Pixels, from data to a measured file: LR-ASPP on MobileNetV2 learns ten classes of composed scenes
# for MINUTES (25), about three quarters of an hour in all on two cores. The scenes are made first
# (runs/compose.sh) where they are not there.
set -euo pipefail
cd "$(dirname "$0")/.."
out=runs/out/segment
minutes=${MINUTES:-25}
data=runs/out/scenes
rm -rf "$out"
mkdir -p "$out"

step() { printf '\n== %s\n' "$*"; }

if [ ! -d "$data" ]; then
  step "1. Ten classes of cut-out photographs, pasted on others"
  bash runs/compose.sh
fi

step "2. LR-ASPP on MobileNetV2 from ImageNet weights learns them at 320 pixels for $minutes minutes"
mobilenet train "$data" --out "$out/run" --model lraspp_mobilenet_v2 --size 320 --minutes "$minutes"

step "3. Measured on objects and photographs that it has not seen, and drawn on some"
mobilenet evaluate "$out/run" "$data"
mobilenet predict "$out/run" "$data"/images/test/00000?.jpg --save "$out/drawn"

step "4. In int8: calibrated, measured, and repaired as far as it needs"
mobilenet quantize "$out/run" "$data" --out "$out/int8" --max-drop 1

step "5. As a file for the native engine, measured against the network in torch"
mobilenet export "$out/int8" --to engine --out "$out/engine"
mobilenet verify "$out/engine" "$data" --max-drop 1

step "6. How fast it is"
mobilenet benchmark "$out/int8"

step "done"
echo "report       $out/run/report.html"
echo "drawn        $out/drawn"
echo "in int8      $out/int8/quantisation.html"
echo "artifact     $out/engine"
echo "certificate  $out/engine/certificate.json"
