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

bash runs/certify.sh "$out" "$data"
