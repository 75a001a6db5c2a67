#!/usr/bin/env bash
# Build the program that `--device` pushes, for machines like this one: static, so that it runs where
# there is nothing else. runs/engine_aarch64.sh builds the one for 64-bit ARM. Goes into
# src/mobilenet/device, or into the folder that MOBILENET_RUNNERS names.
set -euo pipefail
build=$1
cd "$(dirname "$0")/.."
out=${MOBILENET_RUNNERS:-src/mobilenet/device}
cmake -S . -B "$build" "${@:2}"
cmake --build "$build" --parallel "$(nproc)" --target mobilenet_engine
c++ -std=c++17 -O2 -Wall -Wextra -Werror -static -I engine/include engine/device/runner.cpp \
  "$build/engine/libmobilenet.a" -lpthread -o "$out/runner-$(uname -m)"
