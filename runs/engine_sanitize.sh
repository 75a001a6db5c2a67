#!/usr/bin/env bash
# Run the native engine's C++ tests under the address and undefined-behaviour sanitizers, those with
# threads under the thread sanitizer, and some under valgrind, which sees what nobody wrote. On
# Debian or Ubuntu: apt install clang cmake ninja-build valgrind
#
#   bash runs/engine_sanitize.sh BUILD
set -euo pipefail
build=$1

build_tests() {  # FOLDER SANITIZERS
  cmake -S . -B "$build/$1" -G Ninja -DCMAKE_CXX_COMPILER=clang++ -DCMAKE_BUILD_TYPE=None \
    -DCMAKE_CXX_FLAGS="-O1 -g1 -gdwarf-4" -DMOBILENET_TESTS=ON -DMOBILENET_SANITIZE="$2"
  cmake --build "$build/$1" --parallel "$(nproc)"
}

# unwritten_test fills memory with what is no number, and converting that is undefined behaviour:
# none of its answers depend on it
build_tests address address,undefined
UBSAN_OPTIONS=print_stacktrace=1 ctest --test-dir "$build/address" --output-on-failure \
  --exclude-regex unwritten

build_tests thread thread
ctest --test-dir "$build/thread" --output-on-failure --tests-regex "pool|threads"

build_tests plain ""
ctest --test-dir "$build/plain" --output-on-failure --tests-regex unwritten
for test in "kernels_test 30" "threads_test brief"; do
  # shellcheck disable=SC2086
  valgrind --quiet --error-exitcode=1 "$build/plain/engine/tests/"$test
done
