#!/usr/bin/env bash
# Labelled scenes to train and measure detection, segmentation and pose on, in runs/out/scenes: ten
# classes of cut-out photographs from Debian's tuxpaint-stamps-default (160 MB), pasted on the
# photographs of scikit-image and scikit-learn. Objects and backgrounds of val and test are in no
# other split. `runs/compose.sh FILE.deb` takes a package that is already there.
set -euo pipefail
cd "$(dirname "$0")/.."
package=${1:-}
stamps=.cache/stamps/usr/share/tuxpaint/stamps
if [ ! -d "$stamps" ]; then
  mkdir -p .cache/stamps
  if [ -z "$package" ]; then
    (cd .cache && apt-get download tuxpaint-stamps-default)
    package=$(echo .cache/tuxpaint-stamps-default_*.deb)
  fi
  dpkg-deb -x "$package" .cache/stamps
fi
# objects in all, then of train, val and test
mammals=animals/mammals
mobilenet data compose "$stamps" --out runs/out/scenes --pictures "${MOBILENET_PICTURES:-4000}" \
  --classes bird=animals/birds `# 35: 21, 7, 7` \
  --classes fish=animals/fish `# 11: 7, 2, 2` \
  --classes "hoofed=$mammals/bovines,$mammals/camel,$mammals/deer,$mammals/equines" `# 26: 16, 5, 5` \
  --classes fruit=food/fruit `# 26: 16, 5, 5` \
  --classes vegetable=food/vegetables `# 18: 10, 4, 4` \
  --classes flower=plants/flowers `# 24: 14, 5, 5` \
  --classes coin=symbols/money `# 26: 16, 5, 5` \
  --classes sign=town/roadsigns `# 17: 10, 4, 3` \
  --classes vehicle=vehicles `# 17: 10, 4, 3` \
  --classes tool=household/tools `# 12: 8, 2, 2` \
  --without cartoon --without plastic --without 00_symbols `# drawings, currencies' signs` \
  --skip-bad # three traffic lights are photographs without alpha
