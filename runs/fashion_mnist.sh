#!/usr/bin/env bash
# Find Fashion-MNIST, or unpack it from Debian's package; prints nothing where all is well.
# Elsewhere mobilenet downloads it by itself when it is first used.
set -euo pipefail
name=fashion-mnist
target=${MOBILENET_DATA:-$PWD/.cache/data}/$name
[ -d "/usr/share/datasets/$name" ] && exit 0
[ -f "$target/train-images-idx3-ubyte.gz" ] && exit 0
command -v apt-get >/dev/null || exit 0
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
if (cd "$scratch" && { apt-get download --quiet dataset-$name || { apt-get update --quiet && apt-get download --quiet dataset-$name; }; }) >/dev/null 2>&1; then
  dpkg-deb -x "$scratch"/dataset-*.deb "$scratch/root"
  mkdir -p "$target"
  cp "$scratch/root/usr/share/datasets/$name/"*.gz "$target/"
fi
