#!/usr/bin/env bash
# Build the native engine for 64-bit ARM Linux into a folder: the library, the C example, the C++
# tests, run_file, which runs a model file where there is no Python, and the runner that `--device`
# pushes (also into src/mobilenet/device, or $MOBILENET_RUNNERS), as static programs that
# qemu-aarch64 runs. On Debian or Ubuntu: apt install g++-aarch64-linux-gnu qemu-user. More words are
# options for CMake.
set -euo pipefail
build=$1
cd "$(dirname "$0")/.."
cmake -S . -B "$build" -DCMAKE_TOOLCHAIN_FILE="$PWD/engine/cmake/aarch64-linux-gnu.cmake" \
  -DMOBILENET_TESTS=ON "${@:2}"
cmake --build "$build" --parallel "$(nproc)"
aarch64-linux-gnu-gcc -std=c99 -O2 -Wall -Wextra -Werror -static -I engine/include \
  src/mobilenet/export/samples/classify.c "$build/engine/libmobilenet.a" -lstdc++ -lm -lpthread \
  -o "$build/classify"
aarch64-linux-gnu-g++ -std=c++17 -O2 -Wall -Wextra -Werror -static -I engine/include \
  engine/tests/run_file.cpp "$build/engine/libmobilenet.a" -lpthread -o "$build/run_file"
aarch64-linux-gnu-g++ -std=c++17 -O2 -Wall -Wextra -Werror -static -I engine/include \
  engine/device/runner.cpp "$build/engine/libmobilenet.a" -lpthread \
  -o "${MOBILENET_RUNNERS:-src/mobilenet/device}/runner-aarch64"
