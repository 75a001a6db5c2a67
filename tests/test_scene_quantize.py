"""Networks for scenes in int8; what doctor says of scenes; backbones whose front stays frozen."""

import json
import shutil
from dataclasses import replace
from functools import partial
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

from mobilenet import DataError, doctor
from mobilenet.backbone import freeze
from mobilenet.checkpoint import load_network, save_model
from mobilenet.evaluate import evaluate
from mobilenet.evaluate.scene_model import int8_maps, open_scene_model
from mobilenet.evaluate.scenes import SceneDrop
from mobilenet.integer.simulate import simulate
from mobilenet.integer.store import load_quantised
from mobilenet.networks import SCENE_NETWORKS, answers, create_network
from mobilenet.preprocess import Preprocess
from mobilenet.quantize import ladder, quantize
from mobilenet.quantize import scenes as scenes_module
from mobilenet.quantize.reconstruct import Reconstruction
from mobilenet.quantize.result import SceneGate
from mobilenet.runtime.engine import require_engine
from mobilenet.scenes import open_scenes
from mobilenet.tasks import SCENE_TASKS

SIZE = 64
NAMES = {
    "detect": "ssdlite_mobilenet_v2",
    "segment": "lraspp_mobilenet_v3_small",
    "keypoints": "multipose_mobilenet_v2",
}


def write_scenes(root: Path, counts: dict[str, int]) -> Path:
    """Pictures of one or two rectangles, with two corners as keypoints, in COCO's form."""
    rng = np.random.default_rng(3)
    for split, count in counts.items():
        folder = root / split
        folder.mkdir(parents=True)
        images, marks = [], []
        for index in range(count):
            picture = Image.fromarray(rng.integers(0, 120, (60, 80, 3), np.uint8))
            draw = ImageDraw.Draw(picture)
            for _ in range(1 + index % 2):
                x, y = (int(v) for v in rng.integers(2, 30, 2))
                w, h = (int(v) for v in rng.integers(14, 28, 2))
                draw.rectangle((x, y, x + w, y + h), (250, 200, 40))
                marks.append(
                    {
                        "id": len(marks) + 1,
                        "image_id": index,
                        "category_id": 1,
                        "bbox": [x, y, w, h],
                        "area": w * h,
                        "iscrowd": 0,
                        "segmentation": [[x, y, x + w, y, x + w, y + h, x, y + h]],
                        "keypoints": [x, y, 2, x + w, y + h, 2],
                        "num_keypoints": 2,
                    }
                )
            picture.save(folder / f"{index}.png")
            images.append({"id": index, "file_name": f"{index}.png", "width": 80, "height": 60})
        category = {"id": 1, "name": "box", "keypoints": ["top", "bottom"], "skeleton": [[1, 2]]}
        content = {"images": images, "annotations": marks, "categories": [category]}
        (folder / "_annotations.coco.json").write_text(json.dumps(content))
    return root


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_scenes(tmp_path_factory.mktemp("data") / "scenes", {"train": 12, "val": 4})


@pytest.fixture(scope="module")
def runs(data: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A run of every task: random weights, the norms' statistics of random images."""
    made = {}
    for task, name in NAMES.items():
        found = open_scenes(data, task=task)  # pyright: ignore[reportArgumentType]
        kind, named = SCENE_TASKS[task], SCENE_NETWORKS[name]
        named = replace(named, backbone=replace(named.backbone, width=0.35))
        spec = kind.spec_for(named, found, SIZE)
        with torch.random.fork_rng():
            torch.manual_seed(0)
            network = create_network(spec)
            for part in network.modules():
                if isinstance(part, torch.nn.BatchNorm2d):
                    part.momentum = None  # pyright: ignore[reportAttributeAccessIssue]
            with torch.no_grad():
                network(torch.randn(8, 3, SIZE, SIZE))
        made[task] = tmp_path_factory.mktemp(task) / "run"
        save_model(
            made[task],
            spec,
            network.state_dict(),
            preprocess=Preprocess(size=SIZE, resize_mode="stretch").to_dict(),
            labels=kind.labels(found),
            rules=kind.rules(spec, found),
            provenance={"options": {"seed": 0}, "data": {"val_fraction": 0.1}},
        )
    return made


@pytest.mark.parametrize("task", list(NAMES))
def test_an_int8_run_is_a_run_as_any_other(
    task: str, runs: dict[str, Path], data: Path, tmp_path: Path
) -> None:
    """Its engine and its simulation give the same bits, and evaluate measures what the gate did."""
    out = tmp_path / "int8"
    found = quantize(runs[task], str(data), out=out, max_drop=100, threads=1)
    assert found.ok
    assert [rung.name for rung in found.rungs] == ["calibrate"]  # no more than it takes
    network = load_quantised(out)
    images = np.random.default_rng(0).standard_normal((2, 3, SIZE, SIZE), np.float32)
    maps, computed = int8_maps(network, SIZE, threads=1)
    assert "engine" in computed
    exact = simulate(network, images)
    answered = maps(images)
    assert answered.keys() == exact.keys()
    assert all(np.array_equal(answered[name], value) for name, value in exact.items())
    measured = evaluate(out, str(data), split="val", threads=1)
    assert isinstance(found.gate, SceneGate)
    assert measured.scores == found.gate.int8_scores
    assert evaluate(runs[task], str(data), split="val").scores == found.gate.float_scores
    written = json.loads((out / "quantisation.json").read_text())
    assert written["gate"]["drop"]["points"] == found.gate.drop.points
    assert (out / "quantisation.html").read_text().count("<h2>") >= 4


def test_every_repair_serves_maps(
    runs: dict[str, Path], data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All steps run; none that is kept lowers the signal by more than is allowed."""
    steps = "wide,equalise,ranges,maps,bias,round,train"
    monkeypatch.setattr(ladder, "Reconstruction", partial(Reconstruction, iterations=4))
    found = quantize(
        runs["detect"],
        str(data),
        out=tmp_path / "int8",
        max_drop=100,
        steps=steps,
        train_minutes=0.02,
        threads=1,
    )
    assert [rung.name for rung in found.rungs] == ["calibrate", *steps.split(",")]
    kept = [rung.snr_db for rung in found.rungs if rung.kept]
    assert all(after > before - 0.1 for before, after in pairwise(kept))
    assert kept[-1] > kept[0] + 3  # ten bits alone give as much


def test_a_gate_that_nothing_helps_fails(
    runs: dict[str, Path], data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = scenes_module.SceneJudge.gate

    def bad(self: scenes_module.SceneJudge, quantised: object) -> SceneGate:
        measured = gate(self, quantised)  # pyright: ignore[reportArgumentType]
        return replace(measured, drop=SceneDrop(points=9.0, low=8.0, high=10.0))

    monkeypatch.setattr(scenes_module.SceneJudge, "gate", bad)
    out = tmp_path / "int8"
    found = quantize(runs["segment"], str(data), out=out, max_drop=1, train_minutes=0.01, threads=1)
    assert not found.ok
    assert len(found.rungs) == 8
    assert "FAILS" in str(found)


def test_too_few_pictures_are_refused(runs: dict[str, Path], tmp_path: Path) -> None:
    few = write_scenes(tmp_path / "few", {"train": 5, "val": 2})
    with pytest.raises(DataError, match="5 pictures to calibrate with and 2 to measure on"):
        quantize(runs["detect"], str(few), out=tmp_path / "int8")


def test_the_engine_is_there() -> None:
    """Else the tests above would compare the simulation with itself."""
    assert require_engine()


def test_doctor_describes_scenes(data: Path) -> None:
    found = doctor(str(data))
    assert found.ok
    assert found.scenes is not None
    assert found.scenes.kind == "coco"
    assert found.scenes.pictures == {"train": 12, "val": 4}
    assert found.scenes.objects == {"train": {"box": 18}, "val": {"box": 6}}
    assert found.scenes.tasks == ("detect", "segment", "keypoints")
    assert sum(found.scenes.sizes.values()) == 24
    assert "fewer than 20 objects in train: box (18)" in str(found)


def test_doctor_names_what_is_wrong_with_scenes(data: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(data, broken)
    shutil.copy(broken / "train" / "3.png", broken / "val" / "1.png")
    whole = (broken / "train" / "5.png").read_bytes()
    (broken / "train" / "5.png").write_bytes(whole[: len(whole) // 2])
    labels = broken / "train" / "_annotations.coco.json"
    content = json.loads(labels.read_text())
    content["annotations"][0]["category_id"] = 7
    labels.write_text(json.dumps(content))
    found = doctor(str(broken))
    assert not found.ok
    assert found.scenes is not None
    (defect,) = found.scenes.defects
    assert "_annotations.coco.json" in defect
    assert [Path(bad.path).name for bad in found.scenes.unreadable] == ["5.png"]
    (copies,) = found.scenes.copies
    assert {split for _, split in copies.files} == {"train", "val"}
    said = str(found)
    for words in ("defects in the labels: 1", "unreadable pictures: 1", "pictures in several"):
        assert words in said


def test_a_frozen_front_answers_alike_and_does_not_learn(runs: dict[str, Path]) -> None:
    network = load_network(runs["detect"]).module()
    images = torch.randn(2, 3, SIZE, SIZE)
    with torch.no_grad():
        before = answers(network, images)
        freeze(network.get_submodule("backbone"), "c3", torch.device("cpu"))  # pyright: ignore
        after = answers(network, images)
    for name, value in before.items():
        # the norms of random weights enlarge what folding rounds
        assert float((after[name] - value).abs().max()) < 1e-3 * float(value.abs().max())
    state = {name: value.clone() for name, value in network.state_dict().items()}
    network.train()
    learned = [p for p in network.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(learned, 0.1)
    sum(value.mean() for value in answers(network, images).values()).backward()  # pyright: ignore
    optimizer.step()
    changed = {n for n, value in network.state_dict().items() if not torch.equal(value, state[n])}
    block = network.get_submodule("backbone").taps["c3"].block  # pyright: ignore
    front = {name for name in state if name.startswith("backbone.blocks.")
             and int(name.split(".")[2]) <= block}  # fmt: skip
    assert front
    assert not changed & front
    assert any(name.startswith("backbone.") for name in changed)
    with pytest.raises(ValueError, match="tap 'c9'"):
        freeze(network.get_submodule("backbone"), "c9", torch.device("cpu"))  # pyright: ignore


def test_a_run_in_int8_finds_what_its_maps_say(
    runs: dict[str, Path], data: Path, tmp_path: Path
) -> None:
    out = tmp_path / "int8"
    quantize(runs["segment"], str(data), out=out, max_drop=100, threads=1)
    model = open_scene_model(out, threads=1, device="cpu")
    picture = Image.open(data / "val" / "0.png")
    mask = model.find(picture)
    assert mask.shape == (60, 80)
    assert set(np.unique(mask)) <= {0, 1}
