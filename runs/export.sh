#!/usr/bin/env bash
# One network on every target that is installed, in float32 and in int8 with the same whole numbers,
# each file measured by its own runtime: trained on Fashion-MNIST first, about ten minutes in all.
# Targets whose packages are missing are said; `--isolated` would make environments for them.
set -euo pipefail
cd "$(dirname "$0")/.."
out=runs/out/export
mkdir -p "$out"
[ -d .cache/data ] && export MOBILENET_DATA="$PWD/.cache/data"
limit=${LIMIT:-10000}

step() { printf '\n== %s\n' "$*"; }
has() { python -c "import importlib.util as u, sys; sys.exit(not all(map(u.find_spec, sys.argv[1:])))" "$@"; }

if [ ! -f "$out/run/model.json" ]; then
  step "MobileNetV2 from ImageNet weights learns Fashion-MNIST for two minutes"
  mobilenet train fashion-mnist --out "$out/run" --model mobilenet_v2 --size 96 --minutes 2
fi
if [ ! -f "$out/int8/quantisation.json" ]; then
  step "int8 that every target can hold: eight bits everywhere"
  mobilenet quantize "$out/run" fashion-mnist --out "$out/int8" --portable --max-drop 0.3
fi

targets=(onnx openvino engine)
[ -f src/mobilenet/web/mobilenet.wasm ] && command -v node > /dev/null && targets+=(web)
has litert_torch ai_edge_litert && targets+=(litert)
has executorch && targets+=(executorch)
has coremltools && targets+=(coreml)
has ncnn pnnx && targets+=(ncnn)
step "targets: ${targets[*]}"

rm -rf "$out/exported" "$out/coreml"
for target in "${targets[@]}"; do
  step "$target"
  folder=$out/exported
  [ "$target" = coreml ] && [ "$(uname)" != Darwin ] && folder=$out/coreml # slow off Apple's systems
  mobilenet export "$out/run" --to "$target" --out "$folder/$target"
  [ "$target" = ncnn ] && continue # which has no int8 of ours
  ranges=()
  case $target in litert | executorch | coreml) ranges=(--calibrate fashion-mnist) ;; esac
  mobilenet export "$out/int8" --to "$target" --out "$folder/$target-int8" "${ranges[@]}"
done

step "every file by its own runtime, beside the float network, on $limit test pictures"
mobilenet verify "$out/exported" fashion-mnist --limit "$limit" --max-drop 1
if [ -d "$out/coreml" ]; then
  step "Core ML's operators one by one, on 500 pictures"
  mobilenet verify "$out/coreml" fashion-mnist --limit 500 --max-drop 1
fi
