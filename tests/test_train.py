"""Training: what learns, what stays, what a budget is, and that nothing is ever lost."""

import copy
import errno
import hashlib
import json
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import mobilenet
from faults import CountedCalls, Crash, FailingCalls, KilledCalls
from mobilenet import durable
from mobilenet.augment import Augment
from mobilenet.checkpoint import load_model, save_model
from mobilenet.data import open_dataset
from mobilenet.errors import CheckpointError, DataError, TrainingError, UsageError
from mobilenet.models import MODELS, ModelSpec, create
from mobilenet.preprocess import normalise, torchvision
from mobilenet.recipes import FINETUNE, RECIPES, Optimizer, Overrides, Phase, Recipe, Schedule
from mobilenet.train import TrainResult, features
from mobilenet.train.features import to_input
from mobilenet.train.optimizer import (
    WeightAverage,
    build_optimizer,
    lr_factor,
    restore_optimizer,
)

TINY: dict[str, Any] = {
    "model": "mobilenet_v1",
    "width": 0.25,
    "size": 32,
    "threads": 1,
    "workers": 0,
}
COLOURS = {"blue": (40, 60, 200), "green": (40, 180, 60), "red": (200, 50, 40)}


@pytest.fixture(scope="session")
def pictures_by_colour(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three classes of eight noisy pictures, 40 x 36."""
    folder = tmp_path_factory.mktemp("colours") / "data"
    rng = np.random.default_rng(0)
    for label, colour in COLOURS.items():
        (folder / label).mkdir(parents=True)
        for index in range(8):
            pixels = np.clip(rng.normal(colour, 40, (36, 40, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / label / f"{index}.png")
    return folder


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights of the tiny network, as a file to start from."""
    folder = tmp_path_factory.mktemp("weights")
    spec = ModelSpec(name="mobilenet_v1", width=0.25, classes=5)
    torch.manual_seed(0)
    save_model(
        folder,
        spec,
        create(spec).state_dict(),
        preprocess=torchvision(32).to_dict(),
        labels=list("abcde"),
        provenance={},
    )
    return folder / "model.safetensors"


@pytest.fixture
def fit(pictures_by_colour: Path, weights: Path, tmp_path: Path) -> Callable[..., Any]:
    """`mobilenet.train` of the tiny network on the colours, into tmp_path / "run"."""

    def run(**changes: Any) -> TrainResult:
        options = {
            **TINY,
            "weights": str(weights),
            "epochs": 2,
            "overrides": Overrides(batch_size=8),
            "out": str(tmp_path / "run"),  # a path may be a text, as in the README
            **changes,
        }
        data = options.pop("data", str(pictures_by_colour))
        return mobilenet.train(data, **options)

    return run


def sha256(run: Path) -> str:
    return hashlib.sha256((run / "model.safetensors").read_bytes()).hexdigest()


def epochs(run: Path) -> list[dict[str, Any]]:
    lines = (run / "metrics.jsonl").read_text().splitlines()
    return [record for line in lines if (record := json.loads(line))["kind"] == "epoch"]


# ------------------------------------------------------------------------------------ learning


def test_one_batch_is_learned_by_heart(fit: Callable[..., Any], tmp_path: Path):
    by_heart = Recipe(
        optimizer=Optimizer(name="adamw", lr=0.1),
        epochs=40,
        batch_size=18,
        augment=Augment(crop_scale=(1.0, 1.0), crop_ratio=(1.0, 1.0), flip=0.0),
        dropout=0.0,
    )
    with patch.dict(RECIPES, {"by_heart": by_heart}):
        fit(recipe="by_heart", weights="none", epochs=40, overrides=Overrides())
    history = epochs(tmp_path / "run")
    assert history[0]["train_loss"] > 0.8
    assert history[-1]["train_loss"] < 0.2
    assert history[-1]["train_top1"] == 1.0


@pytest.mark.parametrize(
    ("phases", "changed"),
    [
        ((Phase(train="head"),), ("head.",)),
        ((Phase(train="tail"),), ("backbone.blocks.12.", "backbone.blocks.13.", "head.")),
        ((Phase(train="all"),), ("backbone.", "head.")),
    ],
)
def test_what_is_frozen_stays_to_the_bit(
    fit: Callable[..., Any], weights: Path, tmp_path: Path, phases: Any, changed: tuple[str, ...]
):
    with patch.dict(RECIPES, {"phase": replace(FINETUNE, phases=phases)}):
        fit(recipe="phase")
    before = load_model(weights.parent).state
    after = load_model(tmp_path / "run").state
    for name, value in after.items():
        same = value.shape == before[name].shape and torch.equal(value, before[name])
        if not name.startswith(changed):
            assert same, name
        elif name.endswith((".weight", ".bias")):  # with 8 pictures a step, statistics stay too
            assert not same, name


def test_cached_features_may_lie_on_the_disk(fit: Callable[..., Any], tmp_path: Path):
    in_memory = fit(out=tmp_path / "memory").weights_sha256
    with patch.object(features, "MEMORY_BYTES", 0):
        on_disk = fit(out=tmp_path / "disk").weights_sha256
    assert in_memory == on_disk
    assert not list((tmp_path / "disk").rglob("*.f16"))


def test_a_disk_without_room_for_the_cache_is_named(fit: Callable[..., Any]):
    with (
        patch.object(features, "MEMORY_BYTES", 0),
        patch.object(features, "DISK_SHARE", 0.0),
        pytest.raises(TrainingError, match="no room"),
    ):
        fit()


@pytest.mark.parametrize("recipe", [name for name in RECIPES if name != "finetune"])
def test_every_recipe_runs_from_scratch(fit: Callable[..., Any], tmp_path: Path, recipe: str):
    result = fit(recipe=recipe, weights="none", epochs=1)
    assert result.evaluation.metrics.n == 3
    assert epochs(tmp_path / "run")[-1]["phase"] == "all"
    contract = json.loads((tmp_path / "run" / "model.json").read_text())
    assert contract["provenance"]["recipe"] == recipe


def test_overrides_reach_the_run(fit: Callable[..., Any], tmp_path: Path):
    changes = Overrides(
        batch_size=6, accumulate=3, optimizer="rmsprop", lr=0.01, mixup=0.2, cutmix=1.0, ema=0.5,
        class_weights="balanced", amp="bf16", policy="trivial", erase=0.5, dropout=0.1,
        label_smoothing=0.2, weight_decay=1e-3,
    )  # fmt: skip
    fit(overrides=changes)
    recipe = json.loads((tmp_path / "run" / "model.json").read_text())["provenance"]["options"][
        "recipe"
    ]
    assert recipe["optimizer"]["name"] == "rmsprop"
    assert recipe["optimizer"]["lr"] == 0.01
    assert (recipe["accumulate"], recipe["mixup"], recipe["amp"]) == (3, 0.2, "bf16")
    assert recipe["augment"]["policy"] == "trivial"


def test_accumulated_passes_take_the_same_step(fit: Callable[..., Any], tmp_path: Path):
    """With every norm frozen (a batch below 16) the gradient is that of one pass."""
    for passes in (1, 4):
        fit(
            out=tmp_path / str(passes),
            epochs=1,
            overrides=Overrides(batch_size=8, accumulate=passes, dropout=0.0, ema=0.0),
        )
    one, four = (load_model(tmp_path / name).state for name in ("1", "4"))
    for name, value in one.items():
        torch.testing.assert_close(value, four[name], rtol=1e-3, atol=2e-5, msg=name)


def test_a_loss_that_is_no_number_names_the_pictures(fit: Callable[..., Any]):
    with pytest.raises(TrainingError, match=r"loss (nan|inf) at step \d+ .*\.png"):
        fit(epochs=20, overrides=Overrides(batch_size=8, optimizer="sgd", lr=1e25))


@pytest.mark.parametrize(("cost", "phases"), [(0, {"tail", "all"}), (1e9, {"tail"})])
def test_minutes_are_a_budget(
    fit: Callable[..., Any], tmp_path: Path, cost: float, phases: set[str]
):
    """What is too little to see every picture with the whole network goes to the tail."""
    with patch("mobilenet.train.loop.TRAINING_COST", cost or 1e-9):
        result = fit(epochs=None, minutes=0.1)
    assert {record["phase"] for record in epochs(tmp_path / "run")} == phases
    assert result.seconds >= 6  # what was asked for was used


# ---------------------------------------------------------------------------------- determinism


def test_the_number_of_workers_does_not_matter(fit: Callable[..., Any], tmp_path: Path):
    recipe = replace(FINETUNE, augment=Augment(policy="trivial", erase=0.3), mixup=0.2, cutmix=1.0)
    with patch.dict(RECIPES, {"busy": recipe}):
        hashes = {
            fit(out=tmp_path / str(workers), recipe="busy", workers=workers).weights_sha256
            for workers in (0, 2, 8)
        }
        other = fit(out=tmp_path / "other", recipe="busy", seed=1).weights_sha256
    assert len(hashes) == 1
    assert other not in hashes


class Stopped(BaseException):
    """Ends a run at once."""


def stop_after(steps: int) -> Any:
    """A patch that ends training behind so many optimizer steps."""
    from mobilenet.train.loop import Trainer

    step, taken = Trainer._step, [0]

    def stopping(self: Trainer, *args: Any, **options: Any) -> Any:
        if taken[0] == steps:
            raise Stopped
        taken[0] += 1
        return step(self, *args, **options)

    return patch.object(Trainer, "_step", stopping)


@pytest.mark.parametrize("checkpoint_seconds", [0.0, 1e9])
def test_a_run_stopped_anywhere_resumes_to_the_same_weights(
    fit: Callable[..., Any], tmp_path: Path, checkpoint_seconds: float
):
    """With a checkpoint behind every step, and with one an epoch only."""
    alone = fit(out=tmp_path / "alone", epochs=3)
    history = [(r["epoch"], r["train_loss"], r["val_loss"]) for r in epochs(tmp_path / "alone")]
    with patch("mobilenet.train.loop.CHECKPOINT_SECONDS", checkpoint_seconds):
        for steps in range(alone.steps):
            run = tmp_path / f"stopped-{steps}"
            with stop_after(steps), pytest.raises(Stopped):
                fit(out=run, epochs=3)
            assert fit(out=run, epochs=3, resume=True).weights_sha256 == alone.weights_sha256
            again = [(r["epoch"], r["train_loss"], r["val_loss"]) for r in epochs(run)]
            assert again == history


@pytest.mark.slow
def test_killed_at_twenty_random_moments_it_resumes_to_the_same_weights(
    pictures_by_colour: Path, weights: Path, tmp_path: Path
):
    script = Path(__file__).parent / "kill_trials.py"
    command = [sys.executable, script, pictures_by_colour, weights, tmp_path, "20"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout)
    assert len(found["resumed"]) == 20
    assert {found["again"], *found["resumed"]} == {found["alone"]}


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["fails", "dies"])
def test_a_fault_at_any_write_sync_or_rename_loses_nothing(
    fit: Callable[..., Any], tmp_path: Path, kind: str
):
    counted = CountedCalls()
    with patch.object(durable, "os_calls", counted):
        alone = fit(out=tmp_path / "alone", epochs=1).weights_sha256
    assert {"write", "fsync", "replace", "fsync_dir"} <= set(counted.names)
    for at in range(len(counted.names)):
        run = tmp_path / f"{kind}-{at}"
        calls = FailingCalls(at, errno.EIO) if kind == "fails" else KilledCalls(at)
        with patch.object(durable, "os_calls", calls):
            try:
                fit(out=run, epochs=1)
            except (CheckpointError, Crash):
                pass
            else:
                assert kind == "fails"  # a failed tidying-up need not end a run
        assert fit(out=run, epochs=1, resume=True).weights_sha256 == alone
        assert sha256(run) == alone


def test_ctrl_c_saves_and_says_how_to_go_on(
    fit: Callable[..., Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    from mobilenet.train.loop import Trainer

    alone = fit(out=tmp_path / "alone").weights_sha256
    step = Trainer._step

    def interrupting(self: Trainer, *args: Any, **options: Any) -> Any:
        self._stop.set()
        return step(self, *args, **options)

    with patch.object(Trainer, "_step", interrupting), pytest.raises(KeyboardInterrupt):
        fit()
    assert "--resume" in capsys.readouterr().err
    assert fit(resume=True).weights_sha256 == alone


# ------------------------------------------------------------------------------------- refusals


def test_a_folder_that_holds_a_run_is_not_overwritten(fit: Callable[..., Any], tmp_path: Path):
    before = fit().weights_sha256
    with pytest.raises(UsageError, match="--resume"):
        fit()
    assert sha256(tmp_path / "run") == before
    assert fit(resume=True).weights_sha256 == before  # finished: measured again, not trained
    with pytest.raises(CheckpointError, match="other options"):
        fit(resume=True, seed=5)


def test_checkpoints_of_other_options_are_refused(fit: Callable[..., Any]):
    with stop_after(3), pytest.raises(Stopped):
        fit(epochs=3)
    with pytest.raises(CheckpointError, match="other options"):
        fit(epochs=4, resume=True)


def test_bad_pictures_are_named_and_refused_or_left_out(
    fit: Callable[..., Any], pictures_by_colour: Path, tmp_path: Path
):
    import shutil

    data = tmp_path / "data"
    shutil.copytree(pictures_by_colour, data)
    good = (data / "red" / "0.png").read_bytes()
    (data / "red" / "truncated.png").write_bytes(good[: len(good) // 2])
    (data / "blue" / "empty.jpg").write_bytes(b"")
    (data / "green" / "text.jpg").write_text("not a picture")
    with pytest.raises(DataError) as refused:
        fit(data=str(data))
    for name in ("truncated.png", "empty.jpg", "text.jpg"):
        assert name in str(refused.value)
    assert not (tmp_path / "run").exists()
    result = fit(data=str(data), skip_bad=True)
    assert result.evaluation.metrics.n == 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epochs": 1, "minutes": 1.0}, "two budgets"),
        ({"epochs": 0}, "epochs"),
        ({"epochs": None, "minutes": -1.0}, "minutes"),
        ({"size": 31}, "size"),
        ({"resize": 16}, "resize"),
        ({"model": "resnet"}, "resnet"),
        ({"recipe": "magic"}, "magic"),
        ({"weights": "none", "recipe": "finetune"}, "freezes"),
        ({"threads": 0}, "threads"),
        ({"overrides": Overrides(batch_size=0)}, "batch_size"),
    ],
)
def test_wrong_options_are_refused_before_anything_is_written(
    fit: Callable[..., Any], tmp_path: Path, options: dict[str, Any], message: str
):
    with pytest.raises(UsageError, match=message):
        fit(**options)
    assert not (tmp_path / "run").exists()


def test_a_single_class_is_refused(
    fit: Callable[..., Any], pictures_by_colour: Path, tmp_path: Path
):
    import shutil

    shutil.copytree(pictures_by_colour / "red", tmp_path / "one" / "red")
    with pytest.raises(DataError, match="nothing to tell apart"):
        fit(data=str(tmp_path / "one"))


# ---------------------------------------------------------------------------------------- parts


def test_training_sees_the_contracts_pixels():
    pre = torchvision(32)
    images = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), np.uint8)
    ours = to_input(images, pre, torch.device("cpu")).contiguous().numpy()
    assert np.array_equal(ours, normalise(images, pre))


@pytest.mark.parametrize("name", ["sgd", "rmsprop", "adamw"])
def test_an_optimizer_restored_from_contiguous_tensors_goes_on_alike(name: Any):
    """A checkpoint keeps no channels-last, which fused steps would read in the wrong order."""

    def build() -> tuple[nn.Conv2d, torch.optim.Optimizer]:
        torch.manual_seed(0)
        layer = nn.Conv2d(3, 5, 3)
        layer.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        return layer, build_optimizer(layer, Optimizer(name=name, lr=1.0), batch=8)

    def step(layer: nn.Conv2d, optimizer: torch.optim.Optimizer, seed: int) -> None:
        torch.manual_seed(seed)
        layer.zero_grad()
        layer(torch.randn(2, 3, 8, 8)).square().sum().backward()
        optimizer.step()

    straight, optimizer = build()
    step(straight, optimizer, 1)
    saved = copy.deepcopy(optimizer.state_dict())
    for values in saved["state"].values():
        for key, value in values.items():
            if isinstance(value, torch.Tensor):
                values[key] = value.contiguous(memory_format=torch.contiguous_format)
    resumed, restored = build()
    resumed.load_state_dict(straight.state_dict())
    restore_optimizer(restored, saved)
    step(straight, optimizer, 2)
    step(resumed, restored, 2)
    assert torch.equal(straight.weight, resumed.weight)
    assert torch.equal(straight.bias, resumed.bias)  # pyright: ignore[reportArgumentType]


def test_norms_and_biases_never_decay():
    model = create(MODELS["mobilenet_v3_small"])
    options = Optimizer(name="sgd", lr=0.1, weight_decay=0.3, decay_depthwise=False)
    groups = build_optimizer(model, options, batch=128).param_groups
    decay = {id(p): group["weight_decay"] for group in groups for p in group["params"]}
    assert {group["lr"] for group in groups} == {0.05}
    for part in model.modules():
        depthwise = isinstance(part, nn.Conv2d) and part.groups > 1
        for name, parameter in part.named_parameters(recurse=False):
            spared = depthwise or name == "bias" or isinstance(part, nn.BatchNorm2d)
            assert decay[id(parameter)] == (0.0 if spared else 0.3)


def test_the_rate_warms_up_and_falls():
    cosine = Schedule(warmup_epochs=5, warmup_share=0.1)

    def at(progress: float, schedule: Schedule = cosine, epochs: float = 100.0) -> float:
        return lr_factor(schedule, progress=progress, epochs=epochs, epochs_done=progress * epochs)

    assert at(0.025) == pytest.approx(0.5)
    assert at(0.05) == pytest.approx(1.0)
    assert at(0.525) == pytest.approx(0.5)
    assert at(1.0) == pytest.approx(0.0)
    assert at(0.05, epochs=10) == pytest.approx(0.5)  # the warm-up is a tenth at most
    steps = Schedule(kind="steps", warmup_epochs=0, gamma=0.5, step_epochs=2)
    assert [at(p, steps, 8) for p in (0.0, 0.2, 0.25, 0.5, 0.99)] == [1, 1, 0.5, 0.25, 0.125]


def test_the_average_starts_fast_and_ends_slow():
    layer = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(layer.weight)
    average = WeightAverage(layer, 0.9)
    nn.init.ones_(layer.weight)
    average.update(layer, 0)
    assert average.state["weight"].item() == pytest.approx(0.9)
    average.update(layer, 10_000)
    assert average.state["weight"].item() == pytest.approx(0.91)


def test_small_pictures_are_not_cropped_and_large_ones_are(fit: Callable[..., Any], tmp_path: Path):
    fit(epochs=1)
    contract = json.loads((tmp_path / "run" / "model.json").read_text())["preprocess"]
    assert (contract["size"], contract["resize"]) == (32, 37)
    fit(out=tmp_path / "larger", size=48, epochs=1)
    contract = json.loads((tmp_path / "larger" / "model.json").read_text())["preprocess"]
    assert (contract["size"], contract["resize"]) == (48, 48)


def test_a_split_held_out_is_no_part_of_training(pictures_by_colour: Path):
    splits = open_dataset(str(pictures_by_colour), val_fraction=0.25).splits
    train = {splits["train"].name(i) for i in range(len(splits["train"]))}
    val = {splits["val"].name(i) for i in range(len(splits["val"]))}
    assert len(train) == 18
    assert len(val) == 6
    assert not train & val


def test_the_page_on_training_runs():
    page = (Path(__file__).parents[1] / "docs" / "training.md").read_text("utf-8")
    names: dict[str, Any] = {}
    for block in re.findall(r"```python\n(.*?)```", page, re.S):
        exec(compile(block, "docs/training.md", "exec"), names)
    assert names["gentle"].optimizer.lr == 1e-3
    assert names["gentle"].class_weights == "balanced"
    assert [phase.train for phase in names["only_the_head"].phases] == ["head"]


def test_recipes_in_the_page_are_the_recipes_there_are():
    page = (Path(__file__).parents[1] / "docs" / "training.md").read_text("utf-8")
    assert all(f"`{name}`" in page for name in RECIPES)
