"""Find what is on pictures with the network in this folder: python predict.py IMAGE ...

Needs mobilenet (pip install mobilenet) and what runs the file's format; torch is not needed. Prints
one line of JSON an image; coordinates are pixels of the image.
"""

import json
import sys
from pathlib import Path

from mobilenet import predict


def main() -> None:
    found = predict(str(Path(__file__).resolve().parent), [Path(path) for path in sys.argv[1:]])
    for line in found.json_lines():
        print(json.dumps(line, ensure_ascii=False))


if __name__ == "__main__":
    main()
