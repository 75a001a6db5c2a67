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
python - "$stamps" "${MOBILENET_PICTURES:-4000}" <<'END'
import sys

import mobilenet

stamps, pictures = sys.argv[1], int(sys.argv[2])
mammals = "animals/mammals"
hoofed = ",".join(f"{mammals}/{kind}" for kind in ("bovines", "camel", "deer", "equines"))
made = mobilenet.compose(
    stamps,
    out="runs/out/scenes",
    classes=[  # objects: in all, then of train, val and test
        "bird=animals/birds",  # 35: 21, 7, 7
        "fish=animals/fish",  # 11: 7, 2, 2
        f"hoofed={hoofed}",  # 26: 16, 5, 5
        "fruit=food/fruit",  # 26: 16, 5, 5
        "vegetable=food/vegetables",  # 18: 10, 4, 4
        "flower=plants/flowers",  # 24: 14, 5, 5
        "coin=symbols/money",  # 26: 16, 5, 5
        "sign=town/roadsigns",  # 17: 10, 4, 3
        "vehicle=vehicles",  # 17: 10, 4, 3
        "tool=household/tools",  # 12: 8, 2, 2
    ],
    # drawings rather than photographs, and currencies' signs
    without=["cartoon", "plastic", "00_symbols"],
    pictures=pictures,
    skip_bad=True,  # three traffic lights are photographs without alpha
)
print(made)
END
