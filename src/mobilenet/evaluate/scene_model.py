"""A network for scenes that answers, wherever it comes from: a run or an exported artifact."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from ..checkpoint import LoadedNetwork, load_network, read_model_json
from ..checkpoint.contract import read_network_spec
from ..errors import CheckpointError, MissingEngine, UsageError
from ..faces import FaceSpec
from ..flat import Card, EngineFile, write_engine
from ..integer import QuantisedProgram
from ..keypoints import KeypointSpec
from ..models import ModelSpec
from ..networks import Rules, SceneSpec, answers, read_rules
from ..preprocess import Preprocess, crop_and_resize, normalise
from ..program import Floats
from ..runtime import ArtifactFile, Session, is_artifact, load_scene
from ..runtime.sessions import open_engine
from ..tasks import SCENE_TASKS, Maps, SceneTask
from .model import Device, choose_device, not_a_number

if TYPE_CHECKING:
    from torch import nn

MapsOf = Callable[[Floats], Maps]


@dataclass(frozen=True, kw_only=True)
class SceneModel:
    """A network for scenes, and what must go with it. `maps` takes preprocessed images
    (N, 3, size, size) to the network's outputs by name; `runtime` says what computes it."""

    name: str
    task: SceneTask
    spec: SceneSpec
    rules: Rules
    maps: MapsOf
    preprocess: Preprocess
    labels: tuple[str, ...]
    runtime: str
    provenance: dict[str, Any]

    def find(self, picture: Image.Image) -> Any:
        """What is on one picture, in its pixels. Raises MobilenetError for an answer that is not a
        number."""
        pixels = crop_and_resize(picture, self.preprocess)[None]
        return self.decoded(normalise(pixels, self.preprocess), [picture.size], "a picture")[0]

    def decoded(self, images: Floats, sizes: list[tuple[int, int]], what: str) -> list[Any]:
        """What is on preprocessed pictures of these (width, height), in their pixels."""
        maps = self.maps(images)
        if not all(np.isfinite(found).all() for found in maps.values()):
            raise not_a_number(self.name, what)
        return self.task.decode(self.spec, self.rules, maps, sizes, self.preprocess.size)


def task_in(model: str | Path) -> str:
    """The task of a run or an exported folder; "classify" for what is neither."""
    folder = Path(model).expanduser()
    if not (folder / "model.json").is_file():
        return "classify"
    return read_model_json(folder)["task"]


def open_scene_model(
    model: str | Path, *, threads: int | None, device: Device, runtime: str | None = None
) -> SceneModel:
    """Open a run folder or an exported one (without torch).

    Raises UsageError for a classifier, CheckpointError for a damaged folder.
    """
    if threads is not None and threads < 1:
        raise UsageError(f"threads {threads}: expected at least 1")
    folder = Path(model).expanduser()
    contract = read_model_json(folder)
    spec = _checked_spec(folder, contract)
    if is_artifact(folder):
        return of_session(*load_scene(folder, runtime=runtime, threads=threads))
    maps, described = maps_of_run(folder, load_network(folder), threads, device)
    return _assembled(folder, contract, spec, maps, described)


def of_session(file: ArtifactFile, session: Session) -> SceneModel:
    """An exported network whose maps an open session computes. Raises as `open_scene_model`."""
    spec = _checked_spec(file.folder, file.contract)
    described = f"{session.runtime} {session.version}, threads: {session.threads}"
    return _assembled(
        file.folder,
        file.contract,
        spec,
        lambda images: session.maps(session.laid_out(images)),
        described,
    )


def _checked_spec(folder: Path, contract: Mapping[str, Any]) -> SceneSpec:
    """The network that a contract describes, to which its labels and decoding must belong."""
    spec = read_network_spec(contract)
    if isinstance(spec, ModelSpec):
        raise UsageError(f"{folder}: a classifier; expected a network for scenes")
    named = contract["decoding"].get("names", [])
    if isinstance(spec, KeypointSpec) and (len(named) != spec.keypoints or not contract["labels"]):
        raise CheckpointError(
            f"{folder / 'model.json'}: decoding names {len(named)} keypoints and labels "
            f"{contract['labels']}, but the network answers {spec.keypoints} keypoints of one label"
        )
    if isinstance(spec, FaceSpec) and len(named) not in (0, spec.landmarks):
        raise CheckpointError(
            f"{folder / 'model.json'}: decoding names {len(named)} landmarks, but the network "
            f"answers {spec.landmarks}"
        )
    return spec


def _assembled(
    folder: Path, contract: Mapping[str, Any], spec: SceneSpec, maps: MapsOf, described: str
) -> SceneModel:
    try:
        preprocess = Preprocess.from_dict(contract["preprocess"])
    except UsageError as error:
        raise CheckpointError(f"{folder / 'model.json'}: {error}") from None
    return SceneModel(
        name=str(folder),
        task=SCENE_TASKS[contract["task"]],
        spec=spec,
        rules=read_rules(contract["task"], contract["decoding"]),
        maps=maps,
        preprocess=preprocess,
        labels=tuple(contract["labels"]),
        runtime=described,
        provenance=contract["provenance"],
    )


def maps_of_run(
    folder: Path, loaded: LoadedNetwork, threads: int | None, device: Device
) -> tuple[MapsOf, str]:
    """What computes a run's network, and how it is called: torch, or the exact int8 arithmetic."""
    import torch

    from ..layers import folded

    if threads is not None:
        torch.set_num_threads(threads)
    if loaded.quantised is not None:
        from ..integer.store import quantised_of

        network = quantised_of(folder, loaded)
        side, count = loaded.preprocess["size"], torch.get_num_threads()
        return int8_maps(network, side, threads=count)
    chosen = choose_device(device)
    described = f"torch {torch.__version__} on {chosen}"
    if chosen.type == "cpu":
        described += f", threads: {torch.get_num_threads()}"
    return torch_maps(folded(loaded.module()), chosen), described


def int8_maps(network: QuantisedProgram, side: int, *, threads: int) -> tuple[MapsOf, str]:
    """What computes an int8 network for square pictures of `side` pixels, and how it is called: the
    native engine or, where there is none, the simulation, which gives the same bits slowly."""
    file = EngineFile(network=network, precision="int8", height=side, width=side, card=Card())
    try:
        session = open_engine(write_engine(file), threads=threads, precision="int8", batch=None)
    except MissingEngine:
        import torch

        from ..integer.simulate import simulate

        described = f"int8 arithmetic in torch {torch.__version__}, threads: {threads}"
        return lambda images: simulate(network, images), described
    return session.maps, f"{session.runtime} {session.version}, threads: {session.threads}"


def torch_maps(network: "nn.Module", device: Any) -> MapsOf:
    """A network in torch as a function of arrays; it is moved and set to evaluation."""
    import torch

    network = network.to(device, memory_format=torch.channels_last).eval()  # pyright: ignore

    def maps(images: Floats) -> Maps:
        with torch.inference_mode():
            x = torch.from_numpy(images).to(device, memory_format=torch.channels_last)
            found = answers(network, x)
            return {name: value.float().cpu().numpy() for name, value in found.items()}

    return maps
