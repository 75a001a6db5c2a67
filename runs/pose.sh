#!/usr/bin/env bash
# Poses of several people, from data to certificate: a centre-based network on MobileNetV2 learns drawn
# people on photographs, with COCO's seventeen keypoints. About 45 minutes on two cores. One person a
# picture is --model pose_mobilenet_v2.
# MINUTES (default 25) is the time to learn in.
set -euo pipefail
cd "$(dirname "$0")/.."
out=runs/out/pose
data=runs/out/people
minutes=${MINUTES:-25}
mkdir -p "$out"

step() { printf '\n== %s\n' "$*"; }

if [ ! -d "$data" ]; then
  step "composing drawn people on photographs"
  mobilenet data compose --out "$data" --figures 200 --pictures 1500 --objects 1 3 --size 320
fi

if [ ! -f "$out/run/report.html" ]; then
  step "multipose_mobilenet_v2 from ImageNet weights learns for $minutes minutes"
  mobilenet train "$data" --out "$out/run" --model multipose_mobilenet_v2 --size 256 --minutes "$minutes" --resume
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
