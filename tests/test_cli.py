"""The command line: verbs, exit codes, JSON, and what a user of it relies on."""

import inspect
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import mobilenet
from mobilenet import cli
from mobilenet.errors import CheckpointError, UsageError

# Adding an option is a decision: this list is what scripts rely on.
OPTIONS = {
    "info": "model width size classes output_stride width_rule",
    "data compose": (
        "cutouts out backgrounds classes without pictures size objects figures faces held_out seed "
        "skip_bad"
    ),
    "doctor": "data seed val_fraction workers target model width",
    "train": "data out model width size weights recipe overrides epochs minutes resume skip_bad "
    "resize val_fraction limit seed threads workers device",
    "evaluate": "model data split batch_size workers threads device limit skip_bad",
    "predict": "model images top save threads device",
    "import": "file out labels preprocess size",
    "export": "run to out precision weights input calibrate isolated",
    "quantize": (
        "run data out max_drop steps pictures train_minutes portable weight_bits limit skip_bad "
        "threads seed"
    ),
    "verify": "folder data run max_drop split runtime threads limit device cores",
    "benchmark": ("target runtime precision threads size width batch rounds runs device cores"),
}


def function_of(verb: str) -> Callable[..., Any]:
    return getattr(mobilenet, cli.FUNCTIONS.get(verb, verb))


def run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as left:
        cli.main(list(arguments))
    assert isinstance(left.value.code, int)
    return left.value.code


def test_the_verbs_and_their_options_are_frozen():
    found = {name: " ".join(inspect.signature(function_of(name)).parameters) for name in cli.VERBS}
    assert found == OPTIONS


def test_every_verb_is_a_function_of_the_same_name_and_option_documented():
    for name, summary in cli.VERBS.items():
        verb = function_of(name)
        assert verb.__name__ == cli.FUNCTIONS.get(name, name)
        document = inspect.getdoc(verb) or ""
        assert document.splitlines()[0] == summary
        for option in inspect.signature(verb).parameters:
            assert option == "overrides" or f"\n    {option}: " in document, (name, option)


def test_the_public_names():
    assert set(mobilenet.__all__) <= set(dir(mobilenet))
    assert {"MODELS", "train", "load", "preprocess", "MobilenetError"} <= set(mobilenet.__all__)


def test_help_lists_every_verb_and_each_explains_itself(capsys: pytest.CaptureFixture[str]):
    assert run("--help") == 0
    overview = capsys.readouterr().out
    for name in cli.VERBS:
        assert f"  {name} " in overview
        assert run(*name.split(), "--help") == 0
        shown = capsys.readouterr().out
        assert "--json" in shown
        assert "Raises" not in shown


@pytest.mark.parametrize(
    ("model", "options", "params", "madds"),
    [
        ("mobilenet_v3_large", ["--width", "0.75"], 3_993_528, 154_560_624),
        ("mobilenet_v1", [], 4_231_976, 568_740_352),
        ("mobilenetv2_100", [], 3_504_872, 300_774_272),
        ("mobilenet_v3_large", [], 5_483_032, 216_589_760),
        ("mobilenet_v3_small", [], 2_542_856, 56_510_400),
    ],
)
def test_info_counts(
    capsys: pytest.CaptureFixture[str], model: str, options: list[str], params: int, madds: int
):
    assert run("info", model, *options, "--json") == 0
    captured = capsys.readouterr()
    found = json.loads(captured.out)
    assert (found["params"], found["madds"], captured.err) == (params, madds, "")
    assert sum(layer["madds"] for layer in found["layers"]) == madds
    assert run("info", model, *options) == 0
    assert f"{params:,}" in capsys.readouterr().out


def test_info_alone_lists_the_models(capsys: pytest.CaptureFixture[str]):
    assert run("info") == 0
    listed = capsys.readouterr().out
    assert all(name in listed for name in mobilenet.MODELS)


def test_info_of_networks_for_scenes(capsys: pytest.CaptureFixture[str]):
    from mobilenet.heads import count_network
    from mobilenet.networks import SCENE_NETWORKS, create_network

    assert run("info", "--json") == 0
    listed = {found["model"]: found for found in json.loads(capsys.readouterr().out)["scenes"]}
    assert list(listed) == list(SCENE_NETWORKS)
    for name, found in listed.items():
        spec = SCENE_NETWORKS[name]
        cost = count_network(lambda spec=spec: create_network(spec), found["size"], found["size"])
        assert (found["params"], found["madds"]) == (cost.params, cost.madds), name
    options = ["--width", "0.5", "--size", "224", "--classes", "3"]
    assert run("info", "ssdlite_mobilenet_v2", *options, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["width"], found["size"], found["classes"]) == (0.5, 224, 3)
    assert found["params"] < listed["ssdlite_mobilenet_v2"]["params"]
    assert found["taps"] == ["c4_expanded", "last"]
    assert (found["anchors"], found["outputs"]) == ([6] * 6, {"scores": 4, "boxes": 4})
    assert run("info", "pose_mobilenet_v3_small") == 0
    shown = capsys.readouterr().out
    assert "heatmaps 17, offsets 34" in shown
    assert f"{listed['pose_mobilenet_v3_small']['params']:,}" in shown


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["fly"],
        ["info", "resnet50"],
        ["info", "mobilenet_v2", "--size", "31"],
        ["info", "mobilenet_v2", "--output-stride", "12"],
        ["info", "mobilenet_v2", "--width-rule", "keras"],
        ["info", "ssdlite_mobilenet_v2", "--size", "31"],
        ["info", "ssdlite_mobilenet_v2", "--output-stride", "16"],
        ["info", "pose_mobilenet_v2", "--classes", "3"],
        ["info", "--width"],
        ["train"],
        ["train", "x", "--out", "y", "--epochs", "many"],
        ["train", "x", "--out", "y", "--epochs", "1", "--minutes", "1"],
    ],
)
def test_wrong_usage_exits_with_2_and_prints_nothing_on_stdout(
    capsys: pytest.CaptureFixture[str], arguments: list[str]
):
    assert run(*arguments) == 2
    captured = capsys.readouterr()
    assert captured.err or not arguments


def test_failures_exit_with_1_and_say_why(capsys: pytest.CaptureFixture[str], tmp_path: Path):
    assert run("doctor", str(tmp_path / "nowhere"), "--json") == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "nowhere" in captured.err


def test_doctor_lists_bad_files_and_exits_with_1(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, pictures: list[Path]
):
    for label in ("a", "b"):
        (tmp_path / label).mkdir()
        for path in pictures[:3]:
            (tmp_path / label / f"{label}{path.name}").write_bytes(
                path.read_bytes() + label.encode()
            )
    assert run("doctor", str(tmp_path)) == 0
    (tmp_path / "b" / "broken.png").write_bytes(b"")
    capsys.readouterr()
    assert run("doctor", str(tmp_path), "--json") == 1
    found = json.loads(capsys.readouterr().out)
    assert "broken.png" in json.dumps(found)


@pytest.mark.parametrize(
    ("error", "code"), [(UsageError("u"), 2), (CheckpointError("c"), 1), (KeyboardInterrupt(), 130)]
)
def test_exit_codes_of_errors(error: BaseException, code: int):
    def fails() -> None:
        raise error

    assert cli._exit_code(fails, as_json=False) == code


def test_a_verb_stays_a_function_whoever_imports_its_module():
    script = (
        "import mobilenet.evaluate, mobilenet.train\n"
        "from mobilenet.verify import Certificate\n"
        "print(*(callable(getattr(mobilenet, n)) for n in ('evaluate', 'train', 'verify')))"
    )
    answer = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert answer.stdout.split() == ["True"] * 3


def test_importing_every_verb_leaves_heavy_packages_alone():
    script = (
        "import sys, mobilenet.cli\n"
        "[getattr(mobilenet, name) for name in mobilenet.__all__]\n"
        "heavy = {'torch', 'onnx', 'onnxruntime', 'openvino', 'tyro', 'h5py', 'pyarrow'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    answer = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert answer.stdout.strip() == "[]"


def test_the_installed_command_prints_its_version():
    answer = subprocess.run(
        [Path(sys.executable).parent / "mobilenet", "--version"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert answer.stdout.strip() == f"mobilenet {mobilenet.__version__}"


def test_a_reader_that_leaves_early_is_no_error():
    answer = subprocess.run(
        f"{sys.executable} -m mobilenet.cli info mobilenet_v2 --json | head -1",
        shell=True,
        capture_output=True,
        text=True,
        check=False,
    )
    assert answer.stdout == "{\n"
    assert "Traceback" not in answer.stderr
