#!/usr/bin/env bash
# Feed mutated model files to the native engine, under the address and undefined-behaviour
# sanitizers, for so many seconds. What was found worth keeping stays in BUILD/corpus for the next
# time; a file that breaks the engine stays in BUILD, and BUILD/engine/fuzz/fuzz_model FILE shows how.
# On Debian or Ubuntu: apt install clang cmake ninja-build
#
#   bash runs/engine_fuzz.sh BUILD SECONDS
set -euo pipefail
build=$1
seconds=$2
cmake -S . -B "$build" -G Ninja -DCMAKE_CXX_COMPILER=clang++ -DCMAKE_BUILD_TYPE=None \
  -DCMAKE_CXX_FLAGS="-O1 -g1" -DMOBILENET_FUZZ=ON \
  -DMOBILENET_SANITIZE=fuzzer-no-link,address,undefined
cmake --build "$build" --parallel "$(nproc)"
mkdir -p "$build/corpus"
python engine/fuzz/make_corpus.py "$build/seeds"
UBSAN_OPTIONS=print_stacktrace=1 "$build/engine/fuzz/fuzz_model" -max_total_time="$seconds" \
  -max_len=65536 -timeout=20 -rss_limit_mb=4096 -print_final_stats=1 -verbosity=0 \
  -artifact_prefix="$build/" "$build/corpus" "$build/seeds"
