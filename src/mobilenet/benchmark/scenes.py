"""What is timed of networks for scenes: the network and the decoding of its maps, arrays in, found
objects out."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..checkpoint import load_network, read_model_json
from ..checkpoint.contract import read_network_spec
from ..detect import DecodeRules, DetectorSpec
from ..errors import CheckpointError, MissingDependency, UsageError
from ..evaluate.scene_model import task_in, torch_maps
from ..export.engine import rounded
from ..export.onnx import onnx_of_maps
from ..export.openvino import openvino_of
from ..export.qdq import to_qdq
from ..export.scenes import read_scene_golden
from ..faces import RULES, FaceSpec
from ..flat import Card, EngineFile, write_engine
from ..integer import QuantisedProgram
from ..integer.store import quantised_of
from ..keypoints import KeypointRules, KeypointSpec
from ..keypoints.spec import COCO_FLIPPED, COCO_KEYPOINTS, COCO_SIGMAS, COCO_SKELETON
from ..models import ModelSpec
from ..networks import (
    SCENE_NETWORKS,
    Rules,
    SceneSpec,
    create_network,
    default_size,
    labels_of,
    name_of,
    network_program,
    random_network,
    read_rules,
    task_of,
    width_of,
    with_width,
)
from ..program import Program
from ..runtime import (
    FORMATS,
    RUNTIMES,
    ArtifactFile,
    Floats,
    Precision,
    Session,
    is_artifact,
    read_artifact,
)
from ..segment import MaskRules
from ..tasks import SCENE_TASKS, Maps
from .subject import TORCH, NotOffered, Opening

if TYPE_CHECKING:
    from torch import nn

_SEED = 0
_DECODED = 5  # times, to tell how much of the whole decoding is
_TIMED = (
    "the network and the decoding of its maps to what is found, on one thread of NumPy; without "
    "the preprocessing of pictures"
)


@dataclass(frozen=True, kw_only=True, eq=False)
class SceneSubject:
    """A network for scenes to time on square images of `size` pixels, `batch` at once.

    `network` is in evaluation mode; without one `no_network` says why. `quantised` is its int8
    network, where it has one, and `own` the exported folder that is timed. `files` keeps what is
    converted on the way. `inputs` (batch, 3, size, size) must give `maps`, those of
    float32 unless `expected_of` names another precision. `origin` says where the weights are from.
    """

    spec: SceneSpec
    rules: Rules
    labels: tuple[str, ...]
    size: int
    batch: int
    network: "nn.Module | None"
    no_network: str
    quantised: QuantisedProgram | None
    inputs: Floats
    maps: Maps
    expected_of: Precision
    origin: Mapping[str, Any]
    own: ArtifactFile | None = None
    files: dict[str, bytes] = field(default_factory=dict)

    @property
    def expected(self) -> Floats:
        """The numbers of all maps, one map behind another: float32 (N,)."""
        return flat(self.maps, tuple(self.maps))

    def conditions(self) -> dict[str, Any]:
        """What the numbers depend on that is the subject's. `decoding_ms`, the median of a few, is
        of the decoding alone; `found`, how much there was in the first image."""
        from ..heads import count_network

        task, (found, *_) = SCENE_TASKS[task_of(self.spec)], self._found(self.maps)
        cost = count_network(lambda: create_network(self.spec), self.size, self.size)
        return {
            "model": name_of(self.spec),
            "task": task_of(self.spec),
            "width": width_of(self.spec),
            "size": self.size,
            "classes": len(self.labels),
            "batch": self.batch,
            "params": cost.params,
            "madds": cost.madds,
            "timed": _TIMED,
            "decoding_ms": round(self._decoding_ms(), 4),
            "found": len(task.to_json(found, self.labels, self.rules)["predictions"]),
            **self.origin,
        }

    def suits(self, runtime: str) -> bool:
        """Whether it is timed unasked."""
        return runtime in (TORCH, "engine", "onnxruntime", "openvino")

    def answers(self, session: Session) -> Floats:
        """What a session answers to the inputs, as `expected` is."""
        maps, names = session.maps(session.laid_out(self.inputs)), tuple(self.maps)
        return flat(maps, names) if maps.keys() == set(names) else np.empty(0, np.float32)

    def configurations(self, runtime: str, precision: Precision) -> Mapping[str, Opening]:
        """The one way in which "torch" or one of `RUNTIMES` may run this at `precision`.

        Raises NotOffered where there is none.
        """
        if precision == "float32" != self.expected_of:
            raise NotOffered(
                f"there is nothing to compare float32 with: the folder holds {self.expected_of} "
                f"answers, and {self.no_network}; try --precision {self.expected_of}"
            )
        if self.own is not None and precision == self.own.precision:
            own = self.own
            if runtime in FORMATS[own.format]:
                return {"as exported": self._opening(runtime, precision, lambda: bytes(own.data))}
        if not self.suits(runtime):
            raise NotOffered(f"{runtime} has no networks for scenes here")
        if precision == "int8" and self.quantised is None:
            raise NotOffered("there is no int8 network: mobilenet quantize makes one of a run")
        if runtime == TORCH:
            return {"eager, channels-last": self._open_torch(precision)}
        files = {
            "engine": self._engine_file,
            "onnxruntime": self._onnx_file,
            "openvino": self._openvino_file,
        }
        return {"": self._opening(runtime, precision, lambda: files[runtime](precision))}

    def _found(self, maps: Maps) -> list[Any]:
        sizes = [(self.size, self.size)] * self.batch
        task = SCENE_TASKS[task_of(self.spec)]
        return task.decode(self.spec, self.rules, maps, sizes, self.size)

    def _decoding_ms(self) -> float:
        taken = []
        for _ in range(_DECODED):
            start = time.perf_counter()
            self._found(self.maps)
            taken.append(1e3 * (time.perf_counter() - start))
        return float(np.median(taken))

    def _whole(self, session: Session) -> Session:
        """The session, which runs the decoding too."""

        def run(images: Floats) -> Any:
            return self._found(session.maps(images))

        return replace(session, run=run)

    def _opening(self, runtime: str, precision: Precision, file: Callable[[], bytes]) -> Opening:
        def opened(threads: int) -> Session:
            session = RUNTIMES[runtime](
                file(), threads=threads, precision=precision, batch=self.batch
            )
            return self._whole(session)

        return opened

    def _open_torch(self, precision: Precision) -> Opening:
        if precision != "float32":
            raise NotOffered(f"torch: networks for scenes are timed in float32, not {precision}")

        def opened(threads: int) -> Session:
            import torch

            from ..layers import folded

            maps = torch_maps(folded(self._network()), torch.device("cpu"))
            torch.set_num_threads(threads)
            return self._whole(
                Session(
                    runtime=TORCH,
                    version=torch.__version__,
                    precision=precision,
                    layout="NCHW",
                    threads=threads,
                    run=_no_logits,
                    maps=maps,
                )
            )

        return opened

    def _network(self) -> "nn.Module":
        if self.network is None:
            raise NotOffered(self.no_network)
        return self.network

    def _kept(self, name: str, make: Callable[[], bytes]) -> bytes:
        if name not in self.files:
            self.files[name] = make()
        return self.files[name]

    def _engine_file(self, precision: Precision) -> bytes:
        def program() -> Program | QuantisedProgram:
            if precision == "int8":
                assert self.quantised is not None
                return self.quantised
            found = network_program(self._network())
            return rounded(found) if precision == "bfloat16" else found

        if precision == "float16":
            raise UsageError("engine: a file is float32, bfloat16 or int8")
        return self._kept(
            f"engine {precision}",
            lambda: write_engine(
                EngineFile(
                    network=program(),
                    precision=precision,
                    height=self.size,
                    width=self.size,
                    card=Card(),
                )
            ),
        )

    def _onnx_file(self, precision: Precision) -> bytes:
        if precision != "int8":
            return self._kept(
                "onnx", lambda: onnx_of_maps(self._network(), size=self.size, metadata={}).data
            )
        network = self.quantised
        assert network is not None
        return self._kept("onnx QDQ", lambda: to_qdq(network, size=self.size, metadata={}).data)

    def _openvino_file(self, precision: Precision) -> bytes:
        """int8 as `export` writes it: what is not in whole numbers is computed in float32."""
        if precision != "int8":
            return self._onnx_file(precision)
        network = self.quantised
        assert network is not None
        return self._kept(
            "openvino int8",
            lambda: (
                openvino_of(
                    to_qdq(network, size=self.size, metadata={"model.json": "{}"}),
                    {"model.json": "{}"},
                ).data
            ),
        )


def flat(maps: Maps, names: tuple[str, ...]) -> Floats:
    """The numbers of all maps, one map behind another: float32 (N,)."""
    return np.concatenate([maps[name].reshape(-1) for name in names])


def _no_logits(images: Floats) -> Floats:
    raise UsageError("a network for scenes: its answers are maps")


def for_scenes(target: str) -> bool:
    """Whether a target is a network for scenes: its name, a run or an exported folder."""
    return target in SCENE_NETWORKS or task_in(target) != "classify"


def find_scene_subject(
    target: str, *, size: int | None, width: float | None, batch: int
) -> SceneSubject:
    """A network's name (random weights), a run or an exported folder, as a `SceneSubject`.

    Raises UsageError for options that do not fit it.
    """
    folder = Path(target).expanduser()
    if not (folder / "model.json").is_file():
        return _from_name(target, size=size, width=width, batch=batch)
    if width is not None:
        raise UsageError(f"--width {width}: {target} has its width; it goes with a model's name")
    contract = read_model_json(folder)
    stated = contract["preprocess"]["size"]
    spec = read_network_spec(contract)
    assert not isinstance(spec, ModelSpec)
    own = read_artifact(folder) if is_artifact(folder) else None
    if own is not None and size not in (None, stated):
        raise UsageError(f"--size {size}: the file in {folder} takes {stated} pixels only")
    network = quantised = None
    no_network = "the run that was exported is not in its place"
    run = folder if own is None else own.source_run()
    if run is not None:
        try:
            loaded = load_network(run)
            network = loaded.module()
            if loaded.quantised is not None:
                quantised = quantised_of(run, loaded)
        except (MissingDependency, CheckpointError) as error:
            if own is None:
                raise
            no_network = str(error)
    origin = {"weights": str(folder), "weights_sha256": contract["weights"]["sha256"]}
    pixels = size or stated
    inputs = _noise(batch, pixels)
    expected_of: Precision = "float32"
    maps: Maps = {}
    if own is not None:
        golden = read_scene_golden(own)
        chosen = np.arange(batch) % len(golden.inputs)
        inputs, expected_of = golden.inputs[chosen], own.precision
        maps = {name: value[chosen] for name, value in golden.maps.items()}
        origin["artifact_sha256"] = own.sha256
    if network is not None:
        maps, expected_of = _maps(network, inputs), "float32"
    return SceneSubject(
        spec=spec,
        rules=read_rules(contract["task"], contract["decoding"]),
        labels=tuple(contract["labels"]),
        size=pixels,
        batch=batch,
        network=network,
        no_network=no_network,
        quantised=quantised,
        inputs=inputs,
        maps=maps,
        expected_of=expected_of,
        origin=origin,
        own=own,
    )


def _from_name(name: str, *, size: int | None, width: float | None, batch: int) -> SceneSubject:
    spec = SCENE_NETWORKS[name]
    if width is not None:
        spec = with_width(spec, width)
    pixels = default_size(spec) if size is None else size
    network = random_network(spec, pixels)
    inputs = _noise(batch, pixels)
    maps = _maps(network, inputs)
    return SceneSubject(
        spec=spec,
        rules=_default_rules(spec),
        labels=tuple(f"class {index}" for index in range(labels_of(spec) or 1)),
        size=pixels,
        batch=batch,
        network=network,
        no_network="",
        quantised=None,
        inputs=inputs,
        maps=maps,
        expected_of="float32",
        origin={
            "weights": "random, with the batch norm statistics of random images, so that decoding "
            "has other candidates than those of a trained network"
        },
    )


def _default_rules(spec: SceneSpec) -> Rules:
    match spec:
        case DetectorSpec():
            return DecodeRules()
        case KeypointSpec():
            return KeypointRules(
                names=COCO_KEYPOINTS,
                skeleton=COCO_SKELETON,
                flipped=COCO_FLIPPED,
                sigmas=COCO_SIGMAS,
            )
        case FaceSpec():
            return RULES[spec.head]
        case _:
            return MaskRules()


def _noise(batch: int, size: int) -> Floats:
    return np.random.default_rng(_SEED).standard_normal((batch, 3, size, size), np.float32)


def _maps(network: "nn.Module", images: Floats) -> Maps:
    import torch

    return torch_maps(network, torch.device("cpu"))(images)
