#!/usr/bin/env bash
# Faces with their landmarks, from data to a measured file: BlazeFace learns drawn faces on
# photographs for MINUTES (8), about a quarter of an hour in all on two cores. The drawings prove the
# way; a detector of people's faces learns from WIDER FACE by the same verbs.
set -euo pipefail
cd "$(dirname "$0")/.."
out=runs/out/face
minutes=${MINUTES:-8}
data=runs/out/faces
rm -rf "$out"
mkdir -p "$out"

step() { printf '\n== %s\n' "$*"; }

if [ ! -d "$data" ]; then
  step "1. Sixty drawn faces with six landmarks each, pasted on photographs"
  mobilenet data compose --faces 60 --out "$data" --pictures "${PICTURES:-2000}" --size 256 --objects 1 3
fi

step "2. BlazeFace learns them for $minutes minutes, from random weights"
mobilenet train "$data" --out "$out/run" --model blazeface --minutes "$minutes"

step "3. Measured on faces that it has not seen, and drawn on some pictures of them"
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
