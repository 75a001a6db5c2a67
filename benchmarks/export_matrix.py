"""Every target x network x width x size: how far the exported file's logits are from PyTorch's.

    python benchmarks/export_matrix.py [--targets onnx openvino ...] [--page docs/export.md]

Networks have random weights with realistic batch norms. Such a network answers much alike to all
images, with logits so small that no error of theirs would be seen: its classifier is centred and
scaled so that each logit varies by 3 from image to image, as a trained network's do. Each file is
made, run in its own runtime on twenty images (the ten golden ones among them) and compared with the
network in eager PyTorch: the largest error of a logit, and how many first classes agree. Rows are
kept in
.cache/export_matrix.jsonl, so that an interrupted run goes on. With --page the table replaces what
stands between the markers there.
"""

import argparse
import json
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mobilenet.checkpoint import describe_model
from mobilenet.errors import MobilenetError
from mobilenet.export import EXPORTERS
from mobilenet.export.artifact import Job
from mobilenet.export.golden import golden_images, golden_inputs
from mobilenet.models import MODELS
from mobilenet.networks import random_network
from mobilenet.preprocess import torchvision
from mobilenet.runtime import FORMATS, RUNTIMES

if TYPE_CHECKING:
    from torch import Tensor

    from mobilenet.classify import Classifier

NETWORKS = ("mobilenet_v1", "mobilenet_v2", "mobilenet_v3_large", "mobilenet_v3_small")
WIDTHS, SIZES = (0.5, 1.0), (128, 224)
CLASSES = 1000
KEPT = Path(".cache/export_matrix.jsonl")
START, END = "<!-- export-matrix -->", "<!-- /export-matrix -->"
ASKED = 1e-3
SPREAD = 3.0  # standard deviation of a logit over the images


@dataclass(frozen=True, kw_only=True)
class Row:
    """One file. `error` is the largest of any logit, `largest` the largest logit; PyTorch gives the
    images so many `classes`, and `agree` of the `images` get the same from the file."""

    target: str
    network: str
    width: float
    size: int
    runtime: str
    error: float
    largest: float
    classes: int
    agree: int
    images: int

    @property
    def key(self) -> tuple[str, str, float, int]:
        return self.target, self.network, self.width, self.size


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--targets", nargs="+", default=list(EXPORTERS), choices=EXPORTERS)
    parser.add_argument("--page", type=Path)
    options = parser.parse_args()
    KEPT.parent.mkdir(exist_ok=True)
    done = {row.key for row in kept()}
    for size in SIZES:
        for width in WIDTHS:
            for network in NETWORKS:
                todo = [t for t in options.targets if (t, network, width, size) not in done]
                for row in measured(network, width, size, todo):
                    print(json.dumps(asdict(row)), flush=True)
                    with KEPT.open("a") as file:
                        file.write(json.dumps(asdict(row)) + "\n")
    if options.page is not None:
        text = options.page.read_text(encoding="utf-8")
        before, rest = text.split(START)
        page = f"{before}{START}\n{table(list(kept()))}{END}{rest.split(END)[1]}"
        options.page.write_text(page, encoding="utf-8")


def kept() -> Iterator[Row]:
    for line in KEPT.read_text().splitlines() if KEPT.exists() else []:
        yield Row(**json.loads(line))


def measured(name: str, width: float, size: int, targets: list[str]) -> Iterator[Row]:
    """A row for each target that can be made and run here."""
    import torch

    if not targets:
        return
    torch.set_num_threads(1)
    rules = torchvision(size)
    spec = replace(MODELS[name], width=width, classes=CLASSES)
    network = random_network(spec, size)
    golden = golden_inputs(rules, golden_images())
    noise = np.random.default_rng(0).standard_normal(golden.shape, np.float32)
    images = np.concatenate([golden, noise])
    with torch.no_grad():
        spread_out(network, torch.from_numpy(images))
        expected = network(torch.from_numpy(images)).numpy()
    contract = describe_model(
        spec,
        preprocess=rules.to_dict(),
        labels=[str(index) for index in range(CLASSES)],
        task="classify",
        provenance={},
        weights_sha256="0" * 64,
    )
    job = Job(classifier=network, contract=contract, preprocess=rules, precision="float32")
    for target in targets:
        try:
            made = EXPORTERS[target](job)
            opener = RUNTIMES[FORMATS[made.format][0]]
            session = opener(made.data, threads=1, precision="float32", batch=None)
            found = session.run(session.laid_out(images))
        except MobilenetError as error:
            print(f"{target} {name} {width} {size}: {error}", file=sys.stderr, flush=True)
            continue
        yield Row(
            target=target,
            network=name,
            width=width,
            size=size,
            runtime=f"{session.runtime} {session.version}",
            error=float(np.abs(found - expected).max()),
            largest=float(np.abs(expected).max()),
            classes=len(set(expected.argmax(1).tolist())),
            agree=int((found.argmax(1) == expected.argmax(1)).sum()),
            images=len(images),
        )


def spread_out(network: "Classifier", images: "Tensor") -> None:
    """Centre and scale the logits, in place."""
    logits = network(images)
    head, centre = network.head.classifier, logits.mean(0)
    scale = SPREAD / (logits - centre).std()
    head.weight *= scale
    head.bias.copy_(scale * (head.bias - centre))


def table(rows: list[Row]) -> str:
    """Markdown: a line for each network, a column for each target."""
    targets = list(dict.fromkeys(row.target for row in rows))
    found = {row.key: row for row in rows}
    runtimes = {row.target: row.runtime for row in rows}
    heads = ["network", *(f"{target} ({runtimes[target]})" for target in targets)]
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for name in NETWORKS:
        for width in WIDTHS:
            for size in SIZES:
                cells = [cell(found.get((target, name, width, size))) for target in targets]
                lines.append(f"| {' | '.join([f'{name} {width:g}, {size} px', *cells])} |")
    good = all(row.error <= ASKED and row.agree == row.images for row in rows)
    images, classes = rows[0].images, min(row.classes for row in rows)
    said = (
        f"Largest error of a logit on {images} images, to which PyTorch gives {classes} or more "
        f"classes and logits of up to {min(row.largest for row in rows):.0f} or more. The first "
        f"class agrees on all unless it says otherwise. {len(rows)} files measured; at most 0.001 "
        f"and full agreement are asked: {'all hold' if good else 'NOT all hold'}."
    )
    return "\n".join([said, "", *lines, ""])


def cell(row: Row | None) -> str:
    if row is None:
        return "not measured"
    missed = row.images - row.agree
    return f"{row.error:.1e}" + (f", {missed} of {row.images} differ" if missed else "")


if __name__ == "__main__":
    main()
