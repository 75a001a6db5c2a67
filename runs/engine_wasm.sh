#!/usr/bin/env bash
# Build the native engine for browsers: WebAssembly with 128-bit SIMD, one thread, one file that
# imports nothing but a clock. Goes into src/mobilenet/web, from where export --to web takes it; more
# words are options for CMake. On Debian or Ubuntu: apt install emscripten cmake.
set -euo pipefail
build=$1
cd "$(dirname "$0")/.."
out=${MOBILENET_WASM:-src/mobilenet/web/mobilenet.wasm}
# emscripten looks for the packages that Debian's nodejs brings; another node does not find them
export NODE_PATH="${NODE_PATH:+$NODE_PATH:}/usr/share/nodejs"
emcmake cmake -S . -B "$build" "${@:2}"
cmake --build "$build" --parallel "$(nproc)"
functions=_malloc,_free
for name in load_memory free_model plan free_engine run prepare error output_at isa precision height; do
  functions+=",_mobilenet_$name"
done
emcc -O3 "$build/engine/libmobilenet.a" --no-entry -sSTANDALONE_WASM -sALLOW_MEMORY_GROWTH=1 \
  "-sEXPORTED_FUNCTIONS=$functions" -o "$build/mobilenet.wasm"
# the kernels beside their plain twins: node --no-experimental-fetch kernels_test.js (emscripten 3.1
# takes node's fetch for a browser's)
em++ -std=c++17 -O1 -ffp-contract=off -I engine/include engine/tests/kernels_test.cpp \
  "$build/engine/libmobilenet.a" -sALLOW_MEMORY_GROWTH=1 -o "$build/kernels_test.js"
cp "$build/mobilenet.wasm" "$out"
wc -c "$out"
