"""The networks of every task: by name, described, built, as a program."""

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal, overload

from .architectures import Block, Conv
from .detect.rules import DecodeRules
from .detect.spec import DETECTORS, DetectorSpec, create_detector
from .errors import UsageError
from .faces.blaze import ROWS, STEM, Row
from .faces.rules import FaceRules
from .faces.spec import FACES, FaceSpec, create_faces
from .keypoints.rules import KeypointRules
from .keypoints.spec import POSES, KeypointSpec, create_keypoints
from .models import MODELS, ModelSpec, create, parse_model_name
from .segment.rules import MaskRules
from .segment.spec import SEGMENTERS, SegmenterSpec, create_segmenter

if TYPE_CHECKING:
    from torch import Tensor, nn

    from .classify import Classifier
    from .program import Program

Task = Literal["classify", "detect", "segment", "keypoints", "faces"]
SceneSpec = DetectorSpec | SegmenterSpec | KeypointSpec | FaceSpec
Spec = ModelSpec | SceneSpec
Rules = DecodeRules | MaskRules | KeypointRules | FaceRules

TASKS: tuple[Task, ...] = ("classify", "detect", "segment", "keypoints", "faces")
SCENE_NETWORKS: Mapping[str, SceneSpec] = {**DETECTORS, **SEGMENTERS, **POSES, **FACES}
_WRONG = (UsageError, TypeError, ValueError, KeyError, AttributeError, OverflowError)


def task_of(spec: Spec) -> Task:
    """What a network of this description does."""
    match spec:
        case ModelSpec():
            return "classify"
        case DetectorSpec():
            return "detect"
        case SegmenterSpec():
            return "segment"
        case KeypointSpec():
            return "keypoints"
        case FaceSpec():
            return "faces"


def parse_network_name(name: str) -> Spec:
    """The description of a network of any task by its name, a classifier's also by its aliases.

    Raises UsageError for anything else, naming what there is.
    """
    if name in SCENE_NETWORKS:
        return SCENE_NETWORKS[name]
    try:
        return parse_model_name(name).spec
    except UsageError:
        raise UsageError(
            f"model {name!r}: expected one of {sorted(MODELS)}, or, for scenes, of "
            f"{sorted(SCENE_NETWORKS)}"
        ) from None


def name_of(spec: Spec) -> str:
    """What people call it: its name, or what it is made of where it has none."""
    if isinstance(spec, ModelSpec):
        return spec.name
    if spec.backbone is None:
        return spec.head
    for name, known in SCENE_NETWORKS.items():
        if type(known) is type(spec) and known.backbone is not None:
            alike = known.head == spec.head and known.backbone.name == spec.backbone.name
            if alike and _says_width(name, known, spec.backbone.width):
                return name
    return f"{spec.head} on {spec.backbone.name}"


def _says_width(name: str, known: SceneSpec, width: float) -> bool:
    """Whether a network's name, which may end in its width, fits another width."""
    assert known.backbone is not None
    return not name.endswith(f"_{known.backbone.width:g}") or width == known.backbone.width


def read_network(task: str, data: Mapping[str, Any]) -> Spec:
    """The description of which `data` is the `to_dict`. Raises UsageError for any other."""
    kinds = {
        "classify": ModelSpec,
        "detect": DetectorSpec,
        "segment": SegmenterSpec,
        "keypoints": KeypointSpec,
        "faces": FaceSpec,
    }
    try:
        spec = kinds[task].from_dict(dict(data))
        if _text(spec.to_dict()) != _text(data):
            raise ValueError("it does not read back as it was written")
    except _WRONG as error:
        raise UsageError(f"description of a network for {task}: {error}") from None
    return spec


def read_rules(task: str, data: Mapping[str, Any]) -> Rules:
    """How the answers of a network for scenes become what is found, of which `data` is the
    `to_dict`. Raises UsageError for any other."""
    kinds = {
        "detect": DecodeRules,
        "segment": MaskRules,
        "keypoints": KeypointRules,
        "faces": FaceRules,
    }
    try:
        rules = kinds[task].from_dict(dict(data))
        if _text(rules.to_dict()) != _text(data):
            raise ValueError("it does not read back as it was written")
    except _WRONG as error:
        raise UsageError(f"decoding for {task}: {error}") from None
    return rules


def _text(data: Mapping[str, Any]) -> str:
    """Tells a 1 from a true, as == does not."""
    return json.dumps(data, sort_keys=True)


def labels_of(spec: Spec) -> int | None:
    """How many labels a network's model.json has; None: as many as were trained with."""
    match spec:
        case KeypointSpec():
            return None
        case FaceSpec():
            return 1
        case _:
            return spec.classes


def default_size(spec: SceneSpec) -> int:
    """The side of its square input where none is asked for; a detector's is its own."""
    match spec:
        case DetectorSpec() | FaceSpec():
            return spec.size
        case SegmenterSpec():
            return 512
        case KeypointSpec():
            return 256


def rows_of(spec: Spec) -> tuple[Block | Conv | Row, ...]:
    """The rows of its backbone; of BlazeFace, which has none, those of its own table."""
    if isinstance(spec, FaceSpec) and spec.backbone is None:
        return STEM, *ROWS
    return spec.network().blocks


def width_of(spec: Spec) -> float:
    """Its backbone's multiplier of channels, 1 without a backbone."""
    if isinstance(spec, ModelSpec):
        return spec.width
    return 1.0 if spec.backbone is None else spec.backbone.width


def with_width(spec: SceneSpec, width: float) -> SceneSpec:
    """With a backbone of this width. Raises UsageError for a network that has none."""
    if spec.backbone is None:
        raise UsageError(f"width {width:g}: {name_of(spec)} has one only")
    return replace(spec, backbone=replace(spec.backbone, width=width))


def create_network(spec: Spec) -> "nn.Module":
    """Build the network, randomly initialised from torch's global generator, in training mode."""
    match spec:
        case ModelSpec():
            return create(spec)
        case DetectorSpec():
            return create_detector(spec)
        case SegmenterSpec():
            return create_segmenter(spec)
        case KeypointSpec():
            return create_keypoints(spec)
        case FaceSpec():
            return create_faces(spec)


@overload
def random_network(spec: ModelSpec, size: int) -> "Classifier": ...
@overload
def random_network(spec: SceneSpec, size: int) -> "nn.Module": ...
def random_network(spec: Spec, size: int) -> "nn.Module":
    """A network with random weights, the same each time, in evaluation mode.

    Its norms have the statistics of random images: with those of a new network the activations
    shrink from layer to layer into denormal numbers, which take many times as long.
    """
    import torch
    from torch import nn

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = create_network(spec)
        norms = [layer for layer in network.modules() if isinstance(layer, nn.BatchNorm2d)]
        usual = [norm.momentum for norm in norms]
        for norm in norms:
            # the running statistics become those of the one batch below
            norm.momentum = None  # pyright: ignore[reportAttributeAccessIssue]
        with torch.no_grad():
            network(torch.randn(8, 3, size, size))
        for norm, momentum in zip(norms, usual, strict=True):
            norm.momentum = momentum
    return network.eval()


def answers(network: "nn.Module", images: "Tensor") -> "dict[str, Tensor]":
    """What a network for scenes answers to images (N, 3, H, W), by the names of its program's
    outputs: a segmenter's scores at its head's own stride."""
    from .segment.model import Segmenter

    return network.scores(images) if isinstance(network, Segmenter) else network(images)


def network_program(network: "nn.Module") -> "Program":
    """The program of a network that `create_network` builds, batch norms folded."""
    from .classify import Classifier
    from .detect.model import Detector
    from .detect.program import detector_program
    from .faces.model import FaceDetector
    from .faces.program import face_program
    from .keypoints.model import KeypointNetwork
    from .keypoints.program import keypoint_program
    from .program import program_of
    from .segment.model import Segmenter
    from .segment.program import segment_program

    match network:
        case Classifier():
            return program_of(network)
        case Detector():
            return detector_program(network)
        case Segmenter():
            return segment_program(network)
        case KeypointNetwork():
            return keypoint_program(network)
        case FaceDetector():
            return face_program(network)
        case _:
            raise UsageError(f"{type(network).__name__}: no network of this package")
