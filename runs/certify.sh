#!/usr/bin/env bash
# What follows training, for any task on scenes: `bash runs/certify.sh OUT DATA` takes OUT/run through
# measuring, drawing, int8, export, certificates and a benchmark. LIMIT (default: all) is how many
# pictures int8 and the certificates are measured on.
set -euo pipefail
out=$1
data=$2
limit=(${LIMIT:+--limit "$LIMIT"})

step() { printf '\n== %s\n' "$*"; }

step "what it is worth on what it has never seen, and what it finds on three pictures"
mobilenet evaluate "$out/run" "$data"
mapfile -t pictures < <(find "$data/images" -path '*test*' -name '*.jpg' | sort | head -3)
mobilenet predict "$out/run" "${pictures[@]}" --save "$out/drawn"

step "int8: calibrated, measured by the same metric, repaired as far as it needs"
mobilenet quantize "$out/run" "$data" --out "$out/int8" --max-drop 1 "${limit[@]}"

step "exported in float32 and in int8, each file measured by its own runtime"
for run in run int8; do
  for target in engine onnx; do
    mobilenet export "$out/$run" --to $target --out "$out/$run-$target"
    mobilenet verify "$out/$run-$target" "$data" --max-drop 1 "${limit[@]}"
  done
done

step "how fast, decoding included, beside other runtimes"
mobilenet benchmark "$out/run"
mobilenet benchmark "$out/int8" --precision int8

step "the report: $out/run/report.html, the certificates: $out/*/certificate.json"
