#!/usr/bin/env bash
# Poses, from data to measured files: networks on MobileNetV2 learn drawn people with COCO's
# seventeen keypoints for MINUTES (20) each, one all people of a picture, the other a single one:
# about an hour in all on two cores. The drawings prove the way; for people take COCO.
set -euo pipefail
cd "$(dirname "$0")/.."
out=runs/out/pose
minutes=${MINUTES:-20}
data=runs/out/figures
rm -rf "$out"
mkdir -p "$out"

step() { printf '\n== %s\n' "$*"; }

if [ ! -d "$data" ]; then
  step "1. Sixty drawn people with seventeen keypoints each, pasted on photographs"
  mobilenet data compose --figures 60 --out "$data" --pictures "${PICTURES:-2000}" --size 320 --objects 1 3
fi

for model in multipose_mobilenet_v2 pose_mobilenet_v2; do
  step "2. $model from ImageNet weights learns them at 256 pixels for $minutes minutes"
  mobilenet train "$data" --out "$out/$model" --model "$model" --size 256 --minutes "$minutes"

  step "3. Measured on people that it has not seen, and drawn on some pictures of them"
  mobilenet evaluate "$out/$model" "$data"
  mobilenet predict "$out/$model" "$data"/images/test/00000?.jpg --save "$out/$model-drawn"

  step "4. In int8: calibrated, measured, and repaired as far as it needs"
  mobilenet quantize "$out/$model" "$data" --out "$out/$model-int8" --max-drop 1

  step "5. As a file for the native engine, measured against the network in torch"
  mobilenet export "$out/$model-int8" --to engine --out "$out/$model-engine"
  mobilenet verify "$out/$model-engine" "$data" --max-drop 1

  step "6. How fast it is"
  mobilenet benchmark "$out/$model-int8"
done

step "done"
for model in multipose_mobilenet_v2 pose_mobilenet_v2; do
  echo "$model"
  echo "  report       $out/$model/report.html"
  echo "  drawn        $out/$model-drawn"
  echo "  in int8      $out/$model-int8/quantisation.html"
  echo "  certificate  $out/$model-engine/certificate.json"
done
