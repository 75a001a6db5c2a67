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

LIMIT=200 bash runs/certify.sh "$out" "$data"
