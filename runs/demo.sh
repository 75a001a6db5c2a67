#!/usr/bin/env bash
# The main job on real pictures, from weights to a measured file: about six minutes on two cores.
set -euo pipefail
cd "$(dirname "$0")/.."
out=runs/out/demo
rm -rf "$out"
mkdir -p "$out"
[ -d .cache/data ] && export MOBILENET_DATA="$PWD/.cache/data"

step() { printf '\n== %s\n' "$*"; }

step "1. MobileNetV2 from ImageNet weights learns 10,000 pictures of Fashion-MNIST for two minutes"
mobilenet train fashion-mnist --out "$out/run" --model mobilenet_v2 --size 96 --limit 10000 --minutes 2

step "2. The ImageNet network names three photographs"
photographs=$(python - <<'END'
from pathlib import Path
import skimage
folder = Path(skimage.__file__).parent / "data"
print(*(folder / name for name in ("coffee.png", "chelsea.png", "rocket.jpg")))
END
)
# shellcheck disable=SC2086
mobilenet predict mobilenet_v2 $photographs --top 3

step "3. The trained network in int8: calibrated, measured, and repaired as far as it needs"
mobilenet quantize "$out/run" fashion-mnist --out "$out/int8" --max-drop 0.5 --pictures 256 --limit 1000
mobilenet export "$out/int8" --to engine --out "$out/engine"
mobilenet verify "$out/engine" fashion-mnist --limit 2000

step "4. The trained network as an ONNX file with its contract"
mobilenet export "$out/run" --to onnx --out "$out/onnx"

step "5. That very file, measured against the network on 2,000 test pictures"
mobilenet verify "$out/onnx" fashion-mnist --limit 2000

step "6. How fast it is, beside other runtimes"
mobilenet benchmark "$out/onnx"

step "done"
echo "report       $out/run/report.html"
echo "artifact     $out/onnx"
echo "certificate  $out/onnx/certificate.json"
echo "in int8      $out/int8/quantisation.html, $out/engine/certificate.json"
