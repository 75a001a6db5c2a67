"""Networks for scenes exported, opened without torch, verified and timed."""

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

from mobilenet.benchmark import benchmark
from mobilenet.checkpoint import load_network, read_model_json, save_model, write_model_json
from mobilenet.errors import CheckpointError, ExportError, MobilenetError, UsageError
from mobilenet.evaluate import evaluate
from mobilenet.evaluate.scene_model import open_scene_model
from mobilenet.export import export
from mobilenet.export.golden import golden_images, golden_inputs
from mobilenet.export.scenes import largest_error, read_scene_golden
from mobilenet.integer.simulate import simulate
from mobilenet.integer.store import encode_quantised, load_quantised
from mobilenet.networks import SCENE_NETWORKS, answers, create_network, network_program
from mobilenet.preprocess import Preprocess
from mobilenet.program import Floats
from mobilenet.quantize import quantise_program
from mobilenet.runtime import RUNTIMES, load_scene, read_artifact
from mobilenet.scenes import open_scenes
from mobilenet.tasks import SCENE_TASKS
from mobilenet.verify import verify

SIZE = 64
NAMES = {
    "detect": "ssdlite_mobilenet_v3_small",
    "segment": "lraspp_mobilenet_v2",
    "keypoints": "multipose_mobilenet_v3_small",
}
TASKS = tuple(NAMES)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Seven pictures of one or two rectangles, with their corners as keypoints, in COCO's form."""
    root = tmp_path_factory.mktemp("scenes")
    rng = np.random.default_rng(0)
    for split, count in (("train", 3), ("val", 4)):
        folder = root / split
        folder.mkdir()
        images, marks = [], []
        for index in range(count):
            picture = Image.new("RGB", (80, 60), tuple(rng.integers(0, 255, 3).tolist()))
            draw = ImageDraw.Draw(picture)
            for _ in range(1 + index % 2):
                x, y = (int(v) for v in rng.integers(2, 30, 2))
                w, h = (int(v) for v in rng.integers(14, 28, 2))
                draw.rectangle((x, y, x + w, y + h), tuple(rng.integers(0, 255, 3).tolist()))
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
            name = f"{index}.png"
            picture.save(folder / name)
            images.append({"id": index, "file_name": name, "width": 80, "height": 60})
        category = {"id": 1, "name": "box", "keypoints": ["top", "bottom"], "skeleton": [[1, 2]]}
        content = {"images": images, "annotations": marks, "categories": [category]}
        (folder / "_annotations.coco.json").write_text(json.dumps(content))
    return root


def make_run(run: Path, task: str, data: Path, *, int8: bool) -> Path:
    """A run of a network with random weights, the norms' statistics of random images."""
    found = open_scenes(data, task=task)  # pyright: ignore[reportArgumentType]
    kind = SCENE_TASKS[task]
    named = SCENE_NETWORKS[NAMES[task]]
    named = replace(named, backbone=replace(named.backbone, width=0.35))
    spec = kind.spec_for(named, found, SIZE)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = create_network(spec)
        norms = [part for part in network.modules() if isinstance(part, torch.nn.BatchNorm2d)]
        for norm in norms:
            norm.momentum = None  # pyright: ignore[reportAttributeAccessIssue]
        images = torch.randn(8, 3, SIZE, SIZE)
        with torch.no_grad():
            network(images)
    network.eval()
    quantised = None
    if int8:
        batches = [images.numpy()]
        quantised = encode_quantised(quantise_program(network_program(network), batches))
    save_model(
        run,
        spec,
        network.state_dict(),
        preprocess=Preprocess(size=SIZE, resize_mode="stretch").to_dict(),
        labels=kind.labels(found),
        rules=kind.rules(spec, found),
        provenance={"options": {"seed": 0}, "data": {"val_fraction": 0.1}},
        quantised=quantised,
    )
    return run


@pytest.fixture(scope="module")
def runs(data: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("runs")
    found = {task: make_run(root / task, task, data, int8=False) for task in TASKS}
    return found | {
        f"{task} int8": make_run(root / f"{task}8", task, data, int8=True) for task in TASKS
    }


@pytest.fixture(scope="module")
def engines(runs: dict[str, Path]) -> dict[str, Path]:
    """Every run exported for the engine. Copy a folder before changing it."""
    return {
        name: export(run, to="engine", out=run.parent / f"engine of {run.name}").path
        for name, run in runs.items()
    }


def in_torch(run: Path, inputs: Floats) -> dict[str, Floats]:
    with torch.inference_mode():
        found = answers(load_network(run).module(), torch.from_numpy(inputs))
    return {name: value.numpy() for name, value in found.items()}


def golden_of(folder: Path) -> Floats:
    rules = Preprocess.from_dict(read_model_json(folder)["preprocess"])
    return golden_inputs(rules, golden_images())


@pytest.mark.parametrize("task", TASKS)
def test_an_engine_file_answers_as_torch(
    task: str, runs: dict[str, Path], engines: dict[str, Path]
) -> None:
    file, session = load_scene(engines[task], threads=1)
    inputs = golden_of(runs[task])
    expected = in_torch(runs[task], inputs)
    found = session.maps(inputs)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert np.abs(found[name] - value).max() <= 1e-3 * max(np.abs(value).max(), 1)
    stated = {each["name"]: each["shape"][1:] for each in file.description["outputs"]}
    assert stated == {name: list(value.shape[1:]) for name, value in expected.items()}
    golden = read_scene_golden(file)
    np.testing.assert_array_equal(golden.inputs, inputs)
    assert len(golden.images) == 10
    assert largest_error(golden.maps, expected) == 0


@pytest.mark.parametrize("task", TASKS)
def test_int8_in_the_engine_is_the_simulation_to_the_bit(
    task: str, runs: dict[str, Path], engines: dict[str, Path]
) -> None:
    run = runs[f"{task} int8"]
    file, session = load_scene(engines[f"{task} int8"], threads=1)
    assert (file.precision, session.runtime) == ("int8", "engine")
    inputs = golden_of(run)
    expected = simulate(load_quantised(run), inputs)
    found = session.maps(inputs)
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name], value)


@pytest.mark.parametrize(
    ("to", "name"),
    [("openvino", "detect"), ("openvino", "segment int8"), ("onnx", "keypoints int8")],
)
def test_other_formats_answer_alike(
    to: str, name: str, runs: dict[str, Path], engines: dict[str, Path], data: Path, tmp_path: Path
) -> None:
    pytest.importorskip("openvino" if to == "openvino" else "onnxscript")
    made = export(runs[name], to=to, out=tmp_path / to)
    _, session = load_scene(made.path, threads=1)
    file = read_artifact(made.path)
    golden = read_scene_golden(file)
    parts = session.maps(session.laid_out(golden.inputs))
    assert list(parts) == [each["name"] for each in file.description["outputs"]]
    assert largest_error(parts, golden.maps) <= file.description["golden"]["tolerance"]
    found, other = (
        evaluate(str(folder), str(data), threads=1).to_json()
        for folder in (made.path, engines[name])
    )
    primary = found["primary"]
    assert found[primary] == pytest.approx(other[primary], abs=0.02)


@pytest.mark.parametrize("name", [*TASKS, "detect int8", "segment int8", "keypoints int8"])
def test_the_file_for_machines_without_the_engine(name: str, engines: dict[str, Path]) -> None:
    file = read_artifact(engines[name]).fallback()
    assert file is not None
    assert file.path.name == "model.onnx"
    session = RUNTIMES["onnxruntime"](file.data, threads=1, precision=file.precision, batch=None)
    golden = read_scene_golden(file)
    found = session.maps(golden.inputs)
    assert largest_error(found, golden.maps) <= file.description["golden"]["tolerance"]


@pytest.mark.parametrize(("small", "large"), [(1, 21), (3, 7), (5, 33), (10, 10), (41, 64), (4, 8)])
def test_a_map_is_enlarged_to_the_pixel(small: int, large: int) -> None:
    """Of sizes whose ratio float32 cannot hold too."""
    from mobilenet.export.qdq import to_qdq
    from mobilenet.integer import run_integer
    from mobilenet.program import Builder, Filter

    def filter(inputs: int) -> Filter:
        weight = np.random.default_rng(inputs).standard_normal((16, inputs, 1, 1), np.float32)
        return Filter(weight=weight, bias=np.zeros(16, np.float32))

    builder, size = Builder(), 2 * large
    full = builder.conv(0, filter(3), stride=2)
    pooled = builder.average_pool(full, kernel=large - small + 1, stride=1)
    again = builder.resize(builder.conv(pooled, filter(16)), like=full)
    program = builder.program({"map": builder.conv(again, filter(16))})
    images = np.random.default_rng(0).standard_normal((2, 3, size, size), np.float32)
    network = quantise_program(program, [images])
    made = to_qdq(network, size=size, metadata={})
    session = RUNTIMES["onnxruntime"](made.data, threads=1, precision="int8", batch=None)
    found, expected = session.maps(images)["map"], run_integer(network, images)["map"]
    assert np.abs(found - expected).max() <= 0.02 * np.abs(expected).max()


def test_bfloat16_is_the_engines(
    runs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mobilenet.export import scenes

    monkeypatch.setattr(scenes, "_fallback", lambda *given: None)
    made = export(runs["detect"], to="engine", precision="bfloat16", out=tmp_path / "out")
    assert made.precision == "bfloat16"
    assert made.float_cosine > 0.99
    with pytest.raises(UsageError, match="--to onnx has float32, int8"):
        export(runs["detect"], to="onnx", precision="bfloat16", out=tmp_path / "other")


def test_what_is_refused(runs: dict[str, Path], data: Path, tmp_path: Path) -> None:
    for to in ("litert", "executorch", "ncnn", "coreml"):
        with pytest.raises(UsageError, match="networks for scenes have"):
            export(runs["detect"], to=to, out=tmp_path / "out")
    with pytest.raises(UsageError, match="mobilenet quantize"):
        export(runs["detect"], to="engine", precision="int8", out=tmp_path / "out")
    with pytest.raises(UsageError, match="of classifiers"):
        export(runs["detect"], to="onnx", input="pixels", out=tmp_path / "out")
    with pytest.raises(UsageError, match="would be lost"):
        export(runs["detect"], to="onnx", out=runs["segment"])
    with pytest.raises(CheckpointError, match="a run, not an exported model"):
        verify(runs["detect"], str(data))
    assert not (tmp_path / "out").exists()


def test_a_file_that_answers_otherwise_is_not_written(
    runs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mobilenet.export import scenes

    run = scenes._run  # pyright: ignore[reportPrivateUsage]
    for wrong in (0.05, np.nan):

        def other(*given: object, added: float = wrong) -> tuple[str, dict[str, Floats]]:
            name, maps = run(*given)  # pyright: ignore[reportArgumentType]
            changed = {key: value.copy() for key, value in maps.items()}
            last = list(changed)[-1]
            changed[last][3, 0, 0, 0] += added * max(np.abs(changed[last]).max(), 1)
            return name, changed

        monkeypatch.setattr(scenes, "_run", other)
        with pytest.raises(ExportError, match="nothing was written"):
            export(runs["detect"], to="engine", out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["detect", "segment int8", "keypoints"])
def test_answering_imports_no_torch(name: str, engines: dict[str, Path], data: Path) -> None:
    code = (
        "import sys, json\n"
        "from pathlib import Path\n"
        "from mobilenet.evaluate import evaluate\n"
        "from mobilenet.predict import predict\n"
        "folder, data = sys.argv[1:]\n"
        "found = predict(folder, [Path(data) / 'val' / '0.png'], threads=1)\n"
        "assert found.ok\n"
        "print(json.dumps(next(iter(found.json_lines()))))\n"
        "evaluate(folder, data, threads=1)\n"
        "assert 'torch' not in sys.modules, 'torch'\n"
        "assert 'onnx' not in sys.modules, 'onnx'\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(engines[name]), str(data)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["path"].endswith("0.png")


def test_the_sample_prints_what_predict_finds(engines: dict[str, Path], data: Path) -> None:
    folder, picture = engines["segment"], data / "val" / "1.png"
    done = subprocess.run(
        [sys.executable, str(folder / "predict.py"), str(picture)],
        capture_output=True,
        text=True,
        check=True,
    )
    opened = open_scene_model(folder, threads=1, device="cpu")
    with Image.open(picture) as image:
        found = opened.task.to_json(opened.find(image), opened.labels, opened.rules)
    assert json.loads(done.stdout) == {"path": str(picture), **found}


@pytest.mark.parametrize("name", [*TASKS, "detect int8", "keypoints int8"])
def test_verify_certifies(
    name: str, engines: dict[str, Path], runs: dict[str, Path], data: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(engines[name], tmp_path / "out")
    found = verify(folder, str(data), run=runs[name], max_drop=100, threads=1)
    assert found.ok, found
    stated = json.loads((folder / "certificate.json").read_text())
    assert stated == found.to_json()
    comparison = stated["comparison"]
    task = name.split()[0]
    assert (stated["task"], stated["split"], stated["n"]) == (task, "val", 4)
    measured = evaluate(str(folder), str(data), threads=1).to_json()
    primary = measured["primary"]
    assert stated["scores"]["figures"][primary] == measured[primary]
    drop = comparison["drop"]
    expected = comparison["scores"]["figures"][primary] - measured[primary]
    assert drop["points"] == pytest.approx(100 * expected)
    assert drop["low"] <= drop["points"] + 1e-9
    assert drop["high"] >= drop["points"] - 1e-9
    if "int8" not in name:
        assert comparison["max_map_error"] <= stated["golden"]["logit_tolerance"]
        assert comparison["agreement"] in (None, pytest.approx(1, abs=0.01))
    else:
        assert stated["golden"]["max_logit_error"] == 0
        assert 0 < comparison["mean_map_error"] <= comparison["max_map_error"]


def test_verify_finds_what_was_changed(
    engines: dict[str, Path], runs: dict[str, Path], data: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(engines["detect"], tmp_path / "mean")
    contract = read_model_json(folder)
    contract["preprocess"]["mean"] = [0.3, 0.3, 0.3]
    write_model_json(folder, contract)
    found = verify(folder, str(data), run=runs["detect"], max_drop=100, threads=1)
    assert not found.ok
    assert any("preprocessing differs" in problem for problem in found.problems)
    assert sum("states other preprocessing" in problem for problem in found.problems) == 1

    text = (folder / "model.json").read_text()
    (folder / "model.json").write_text(text.replace('"overlap": 0.55', '"overlap": 0.5'))
    with pytest.raises(CheckpointError, match="checksum"):
        verify(folder, str(data), threads=1)

    folder = shutil.copytree(engines["detect"], tmp_path / "rules")
    contract = read_model_json(folder)
    contract["decoding"]["threshold"] = 0.9
    write_model_json(folder, contract)
    found = verify(folder, str(data), run=runs["detect"], max_drop=100, threads=1)
    assert any("states other decoding" in problem for problem in found.problems)

    for name in ("model.mbn", "golden.npz"):
        folder = shutil.copytree(engines["detect"], tmp_path / name)
        path = folder / name
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
        with pytest.raises(CheckpointError):
            verify(folder, str(data), run=runs["detect"], threads=1)
        assert not (folder / "certificate.json").exists()


@pytest.mark.parametrize(
    ("outputs", "why"),
    [
        ([], "first the one"),
        ([0, 0], "two of the same name"),
        ([0, {"name": "more", "dtype": "float32", "shape": [0.5]}], "shape"),
        ([0, {"name": "more", "shape": [1]}], "dtype"),
        ([0, "more"], "an object for each"),
    ],
)
def test_other_outputs_are_refused(
    outputs: list[object], why: str, engines: dict[str, Path], tmp_path: Path
) -> None:
    contract = read_model_json(engines["detect"])
    artifact = contract["artifact"]
    artifact["outputs"] = [artifact["output"] if each == 0 else each for each in outputs]
    with pytest.raises(CheckpointError, match=why):
        write_model_json(tmp_path, contract)


def test_the_gate_of_verify(
    engines: dict[str, Path],
    runs: dict[str, Path],
    data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from mobilenet.cli import main

    folder = shutil.copytree(engines["segment"], tmp_path / "out")
    # moved away from its run
    found = verify(folder, str(data), threads=1, limit=2)
    assert (found.ok, found.comparison) == (False, None)
    with pytest.raises(CheckpointError, match="not those that were exported"):
        verify(folder, str(data), run=runs["detect"], threads=1)
    with pytest.raises(UsageError, match="--device"):
        verify(folder, str(data), device="ssh:nowhere")

    from mobilenet.tasks import SEGMENT

    decode = type(SEGMENT).decode

    def constant(self: object, *given: object) -> list[Floats]:
        """Of every batch the exported file is asked first: objects only, then background only."""
        turn.append(1)
        found = decode(self, *given)  # pyright: ignore[reportArgumentType]
        return [mask * 0 + len(turn) % 2 for mask in found]

    turn: list[int] = []
    monkeypatch.setattr(type(SEGMENT), "decode", constant)
    given = ["verify", str(folder), str(data), "--run", str(runs["segment"]), "--split", "train"]
    with pytest.raises(SystemExit) as left:
        main([*given, "--max-drop", "0", "--threads", "1", "--json"])
    stated = json.loads((folder / "certificate.json").read_text())
    assert left.value.code == 1
    assert stated["comparison"]["drop"]["points"] > 0
    assert stated["comparison"]["agreement"] == 0
    assert (stated["ok"], stated["split"]) == (False, "train")
    assert any("more than 0" in problem for problem in stated["problems"])


@pytest.mark.parametrize(
    "name", ["fcos_mobilenet_v3_small", "lraspp_mobilenet_v3_small", "pose_mobilenet_v3_small"]
)
def test_a_network_is_timed_by_its_name_with_its_decoding(name: str) -> None:
    found = benchmark(name, size=64, width=0.35, runtime=("torch", "engine"), rounds=2, runs=2)
    assert found.ok
    assert {timing.runtime for timing in found.results} == {"torch", "engine"}
    conditions = found.to_json()["conditions"]
    assert (conditions["model"], conditions["size"], conditions["width"]) == (name, 64, 0.35)
    assert "decoding of its maps" in conditions["timed"]
    assert all(timing.median_ms > conditions["decoding_ms"] / 3 for timing in found.results)
    assert all(timing.max_error < 1e-3 for timing in found.results)
    assert "decoding alone" in str(found)


def test_an_int8_run_and_its_export_are_timed(
    runs: dict[str, Path], engines: dict[str, Path]
) -> None:
    chosen = ("engine", "onnxruntime", "openvino")
    found = benchmark(str(runs["segment int8"]), precision="int8", runtime=chosen, rounds=1, runs=2)
    assert {timing.runtime for timing in found.results} == set(chosen)
    assert all(timing.cosine > 0.7 for timing in found.results)
    exported = benchmark(str(engines["segment int8"]), runtime=("engine",), rounds=1, runs=2)
    (timing,) = exported.results
    assert (timing.configuration, timing.precision) == ("as exported", "int8")
    assert exported.conditions["artifact_sha256"] == read_artifact(engines["segment int8"]).sha256


def test_what_is_not_timed(runs: dict[str, Path], engines: dict[str, Path], tmp_path: Path) -> None:
    run = str(runs["detect"])
    for given, why in (
        ({"precision": "int8", "runtime": ("engine",)}, "mobilenet quantize"),
        ({"runtime": ("ncnn",)}, "no networks for scenes"),
        ({"width": 0.5}, "--width"),
        ({"device": "ssh:nowhere"}, "--device"),
    ):
        with pytest.raises(MobilenetError, match=why):
            benchmark(run, rounds=1, runs=1, **given)  # pyright: ignore[reportArgumentType]
    with pytest.raises(UsageError, match="takes 64 pixels only"):
        benchmark(str(engines["detect"]), size=96)
    # away from its run, only the answers that lie in the folder tell
    folder = shutil.copytree(engines["keypoints int8"], tmp_path / "out")
    found = benchmark(str(folder), runtime=("engine",), rounds=1, runs=1)
    assert found.results[0].max_error == 0
    with pytest.raises(MobilenetError, match="nothing to compare float32 with"):
        benchmark(str(folder), precision="float32", runtime=("engine",))
