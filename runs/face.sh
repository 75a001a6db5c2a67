#!/usr/bin/env bash
# Faces with their landmarks, from data to certificate: BlazeFace learns drawn faces on photographs and
# is measured on faces that it has never seen. About 20 minutes on two cores. The drawings prove the
# way; a detector of people's faces learns from WIDER FACE with the same verbs.
# MINUTES (default 10) is the time to learn in.
set -euo pipefail
cd "$(dirname "$0")/.."
out=runs/out/face
data=runs/out/faces
minutes=${MINUTES:-10}
mkdir -p "$out"

step() { printf '\n== %s\n' "$*"; }

if [ ! -d "$data" ]; then
  step "composing drawn faces on photographs"
  mobilenet data compose --out "$data" --faces 60 --pictures 2000 --objects 1 3 --size 256
fi

if [ ! -f "$out/run/report.html" ]; then
  step "blazeface learns from random weights for $minutes minutes"
  mobilenet train "$data" --out "$out/run" --model blazeface --minutes "$minutes" --resume
fi

step "what it is worth on faces that it has never seen, and what it finds on three pictures"
mobilenet evaluate "$out/run" "$data"
mapfile -t pictures < <(find "$data/images" -path '*test*' -name '*.jpg' | sort | head -3)
mobilenet predict "$out/run" "${pictures[@]}" --save "$out/drawn"

step "int8: calibrated, measured by the same metric, repaired as far as it needs"
mobilenet quantize "$out/run" "$data" --out "$out/int8" --max-drop 1

step "exported in float32 and in int8, each file measured by its own runtime"
for run in run int8; do
  mobilenet export "$out/$run" --to engine --out "$out/$run-engine"
  mobilenet verify "$out/$run-engine" "$data" --max-drop 1
done

step "how fast, decoding included, beside other runtimes"
mobilenet benchmark "$out/run"
mobilenet benchmark "$out/int8" --precision int8

step "the report: $out/run/report.html, the certificates: $out/*/certificate.json"
