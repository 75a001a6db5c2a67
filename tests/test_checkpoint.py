import errno
import hashlib
import json
import math
import os
import random
import re
import shutil
import subprocess
import sys
import textwrap
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

import mobilenet
from faults import (
    CountedCalls,
    Crash,
    FailingCalls,
    FullDisk,
    KilledCalls,
    PowerLoss,
    installed,
    names,
)
from mobilenet import checkpoint
from mobilenet.checkpoint import (
    CheckpointStore,
    LoadedModel,
    Saved,
    describe_model,
    file_sha256,
    flatten_state,
    load_model,
    read_model_json,
    save_model,
    state_sha256,
    unflatten_state,
    write_model_json,
)
from mobilenet.checkpoint import contract as contract_module
from mobilenet.checkpoint import model as model_module
from mobilenet.checkpoint.contract import SOFTMAX
from mobilenet.errors import CheckpointError, MissingDependency, UsageError
from mobilenet.models import MODELS, ModelSpec, create

SPEC = ModelSpec(name="mobilenet_v1", width=0.05, classes=3, dropout=0.0)
PREPROCESS = {"size": 32, "mean": [0.5, 0.5, 0.5]}
PROVENANCE = {"seed": 1, "versions": {"mobilenet": "0.1.0"}}


def random_state(spec: ModelSpec, seed: int) -> dict[str, Tensor]:
    """A state with every tensor, running statistics too, filled at random."""
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        state = create(spec).state_dict()
    return {
        name: torch.rand(tensor.shape, generator=generator)
        if tensor.is_floating_point()
        else torch.randint(1000, tensor.shape, generator=generator)
        for name, tensor in state.items()
    }


@pytest.fixture(autouse=True)
def without_waiting_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only a power loss tells whether fsync was called, and `PowerLoss` notes that itself."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


STATES = [random_state(SPEC, seed) for seed in range(3)]


def save(folder: Path, which: int) -> None:
    """Save STATES[which] with labels that tell whose `model.json` was read."""
    save_model(
        folder,
        SPEC,
        STATES[which],
        preprocess=PREPROCESS,
        labels=[f"{which}", "cat", "chat échaudé"],
        provenance=PROVENANCE,
    )


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    """Equal names, types, shapes and bits."""
    return one.keys() == other.keys() and all(
        one[name].dtype == other[name].dtype
        and one[name].shape == other[name].shape
        and bits(one[name]) == bits(other[name])
        for name in one
    )


def bits(tensor: Tensor) -> bytes:
    flat = tensor.clone(memory_format=torch.contiguous_format).reshape(-1)
    return flat.view(torch.uint8).numpy().tobytes()


def which_loads(folder: Path) -> int | None:
    """Which of STATES a folder holds, json and weights alike; None where it never held one."""
    if not (folder / "model.json").exists():
        with pytest.raises(CheckpointError, match=r"no model\.json"):
            load_model(folder)
        return None
    loaded = load_model(folder)
    which = int(loaded.labels[0])
    assert same(loaded.state, STATES[which])
    return which


def assert_tidy(folder: Path) -> None:
    assert names(folder) == ["model.json", "model.safetensors"]
    assert_visible(folder)


def assert_visible(folder: Path) -> None:
    """Programs that know nothing of waiting weights find the right ones too."""
    stated = read_model_json(folder)["weights"]["sha256"]
    assert file_sha256(folder / "model.safetensors") == stated


# ------------------------------------------------------------------------------ a model's files


@pytest.mark.parametrize("name", MODELS)
def test_a_saved_network_answers_as_before(name: str, tmp_path: Path) -> None:
    spec = replace(MODELS[name], width=0.35, classes=7, padding="same")
    network = create(spec)
    network.load_state_dict(random_state(spec, 0))
    labels = [f"class {index}" for index in range(7)]
    sha256 = save_model(
        tmp_path / "run",
        spec,
        network.state_dict(),
        preprocess=PREPROCESS,
        labels=labels,
        provenance=PROVENANCE,
    )
    loaded = load_model(tmp_path / "run")
    assert loaded.spec == spec
    assert loaded.labels == tuple(labels)
    assert (loaded.preprocess, loaded.provenance, loaded.task) == (
        PREPROCESS,
        PROVENANCE,
        "classify",
    )
    assert loaded.weights_sha256 == sha256 == file_sha256(tmp_path / "run" / "model.safetensors")
    module = loaded.module()
    assert not module.training
    images = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        assert torch.equal(module(images), network.eval()(images))
    description = read_model_json(tmp_path / "run")
    assert (description["format"], description["version"]) == ("mobilenet", 1)
    assert_tidy(tmp_path / "run")


def test_a_module_has_weights_of_its_own(tmp_path: Path) -> None:
    save(tmp_path, 0)
    loaded = load_model(tmp_path)
    with torch.no_grad():
        for parameter in loaded.module().parameters():
            parameter.zero_()
    assert same(loaded.state, STATES[0])


def test_saving_and_loading_leave_the_random_state_alone(tmp_path: Path) -> None:
    spec = replace(SPEC, classes=2)  # not built before
    state = random_state(spec, 0)
    before = torch.get_rng_state()
    save_model(tmp_path, spec, state, preprocess={}, labels=["a", "b"], provenance={})
    load_model(tmp_path).module()
    assert torch.equal(torch.get_rng_state(), before)


def test_equal_weights_make_equal_files(tmp_path: Path) -> None:
    save(tmp_path / "a", 0)
    strided = {
        name: tensor.to(memory_format=torch.channels_last) if tensor.ndim == 4 else tensor
        for name, tensor in reversed(STATES[0].items())
    }
    save_model(
        tmp_path / "b", SPEC, strided, preprocess={}, labels=["x", "y", "z"], provenance={"seed": 2}
    )
    assert file_sha256(tmp_path / "a/model.safetensors") == file_sha256(
        tmp_path / "b/model.safetensors"
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("head.classifier.bias"), "'head.classifier.bias': mobilenet_v1 has"),
        (lambda s: s.update(extra=torch.zeros(1)), "'extra': mobilenet_v1 has no such tensor"),
        (
            lambda s: s.update({"head.classifier.bias": torch.zeros(4)}),
            r"float32 \(3,\), the state torch.float32 \(4,\)",
        ),
        (
            lambda s: s.update({"head.classifier.bias": torch.zeros(3, dtype=torch.float64)}),
            "float64",
        ),
    ],
)
def test_a_state_of_another_network_is_not_saved(
    change: Callable[[dict[str, Tensor]], object], message: str, tmp_path: Path
) -> None:
    save(tmp_path, 0)
    state = dict(STATES[1])
    change(state)
    with pytest.raises(CheckpointError, match=message):
        save_model(tmp_path, SPEC, state, preprocess={}, labels=list("abc"), provenance={})
    assert which_loads(tmp_path) == 0


def test_what_could_not_be_read_back_is_not_saved(tmp_path: Path) -> None:
    save(tmp_path, 0)
    options: dict[str, Any] = {"preprocess": {}, "labels": ["a", "b", "c"], "provenance": {}}
    for field, value, message in [
        ("labels", ["a", "b"], "2 labels for 3 classes"),
        ("labels", ["a", "b", 3], "texts only"),
        ("provenance", {"loss": math.nan}, "not JSON compliant"),
        ("provenance", {"when": object()}, "not JSON serializable"),
        ("provenance", {"log": "x" * (5 << 20)}, "at most 4194304 allowed"),
    ]:
        with pytest.raises(CheckpointError, match=message):
            save_model(tmp_path, SPEC, STATES[1], **{**options, field: value})
    assert which_loads(tmp_path) == 0
    assert_tidy(tmp_path)


def test_labels_of_undecodable_folder_names_come_back(tmp_path: Path) -> None:
    labels = [os.fsdecode(b"caf\xe9"), "日本", 'quote" and \\']
    save_model(tmp_path, SPEC, STATES[0], preprocess={}, labels=labels, provenance={})
    assert load_model(tmp_path).labels == tuple(labels)


# ---------------------------------------------------------------- a model's files and accidents


def calls_of_a_save(folder: Path) -> list[str]:
    save(folder, 0)
    calls = CountedCalls()
    with installed(calls):
        save(folder, 1)
    assert set(calls.names) == {"write", "fsync", "replace", "fsync_dir"}
    return calls.names


def snapshot(folder: Path) -> frozenset[tuple[str, bytes]]:
    """What a folder holds, the random names of temporary files aside."""
    return frozenset(
        ("temporary" if path.suffix == ".mobilenet-tmp" else path.name, path.read_bytes())
        for path in folder.iterdir()
    )


def test_kill_at_each_call_of_a_save_and_of_the_next(tmp_path: Path) -> None:
    save(tmp_path / "before", 0)
    left: dict[frozenset[tuple[str, bytes]], Path] = {}
    for at in range(len(calls_of_a_save(tmp_path / "count"))):
        folder = shutil.copytree(tmp_path / "before", tmp_path / str(at))
        with installed(KilledCalls(at)), pytest.raises(Crash):
            save(folder, 1)
        left.setdefault(snapshot(folder), folder)
    assert len(left) > 5
    assert {which_loads(folder) for folder in left.values()} == {0, 1}
    for between in left.values():
        at = 0
        while True:
            folder = shutil.copytree(between, between.with_name(f"{between.name} {at}"))
            try:
                with installed(KilledCalls(at)):
                    save(folder, 2)
            except Crash:
                assert which_loads(folder) in (which_loads(between), 2)
            else:
                break
            save(folder, 0)
            assert which_loads(folder) == 0
            assert_tidy(folder)
            at += 1
        assert at >= 9
        assert which_loads(folder) == 2
        assert_tidy(folder)


def test_kill_at_each_call_of_the_first_save(tmp_path: Path) -> None:
    at, loaded = 0, []
    while True:
        folder = tmp_path / str(at) / "run"
        try:
            with installed(KilledCalls(at)):
                save(folder, 1)
        except Crash:
            loaded.append(which_loads(folder))
        else:
            break
        save(folder, 2)
        assert which_loads(folder) == 2
        assert_tidy(folder)
        at += 1
    assert loaded == sorted(loaded, key=lambda which: which is not None)
    assert set(loaded) == {None, 1}


@pytest.mark.parametrize(
    "failing",
    [
        lambda at: FailingCalls(at, errno.ENOSPC),
        lambda at: FailingCalls(at, errno.EIO),
        lambda at: FullDisk(at),
    ],
    ids=["ENOSPC once", "EIO once", "full disk"],
)
def test_failure_at_each_call_of_a_save(
    failing: Callable[[int], CountedCalls], tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    for at, name in enumerate(calls_of_a_save(tmp_path / "count")):
        save(folder, 0)
        calls = failing(at)
        if isinstance(calls, FullDisk) and name == "fsync_dir":
            continue  # as at the call after it
        with installed(calls), pytest.raises(CheckpointError, match=str(folder)):
            save(folder, 1)
        if which_loads(folder) == 0:  # nothing that takes room on a full disk
            assert_tidy(folder)
        save(folder, 2)
        assert which_loads(folder) == 2
        assert_tidy(folder)


def after_power_losses(folder: Path, disks: Path, which: int) -> Iterator[tuple[Path, bool]]:
    """Save STATES[which] in copies of `folder`, with the power lost at each call in turn: the
    different states of the disk, and whether the save had returned."""
    chance, seen = random.Random(0), set()
    at, finished = 0, False
    while not finished:
        copy = shutil.copytree(folder, disks / f"{at}")
        calls = PowerLoss(copy, at)
        try:
            with installed(calls):
                save(copy, which)
                finished = True
        except Crash:
            pass
        for turn, share in enumerate((0.0, 0.5, 0.5, 1.0)):
            disk = disks / f"{at} {turn}"
            calls.survivors(disk, chance, share)
            if (finished, snapshot(disk)) not in seen:
                seen.add((finished, snapshot(disk)))
                yield disk, finished
        calls.close()
        at += 1


def test_power_loss_at_each_call_of_a_save_and_of_the_next(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    save(folder, 0)
    (tmp_path / "first").mkdir()
    loaded = set()
    for disk, finished in after_power_losses(folder, tmp_path / "first", 1):
        between = which_loads(disk)
        assert between in ((1,) if finished else (0, 1))
        loaded.add(between)
        disks = tmp_path / f"after {disk.name}"
        disks.mkdir()
        for second, done in after_power_losses(disk, disks, 2):
            assert which_loads(second) in ((2,) if done else (between, 2))
            if done:
                assert_visible(second)
    assert loaded == {0, 1}
    save(second, 0)
    assert which_loads(second) == 0
    assert_tidy(second)


def test_a_model_is_loaded_whole_while_another_is_saved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(tmp_path, 0)
    read, left = model_module.read_model_json, [1, 2]

    def read_slowly(folder: Path) -> dict[str, Any]:
        description = read(folder)
        if left and sys._getframe(1).f_code.co_name == "load_network":
            save(tmp_path, left.pop(0))
        return description

    monkeypatch.setattr(model_module, "read_model_json", read_slowly)
    assert which_loads(tmp_path) == 2
    assert left == []


# ------------------------------------------------------------ a model's files, damaged or hostile


def flipped(data: bytes, at: int, bit: int) -> bytes:
    return data[:at] + bytes([data[at] ^ (1 << bit)]) + data[at + 1 :]


def places(size: int, *, dense: int, others: int) -> list[int]:
    """Every place of the first and last `dense` bytes, and some between."""
    chance = random.Random(size)
    ends = {*range(min(dense, size)), *range(max(0, size - dense), size)}
    return sorted(ends | {chance.randrange(size) for _ in range(others)})


def test_any_change_of_the_weights_is_noticed(tmp_path: Path) -> None:
    save(tmp_path, 0)
    file = tmp_path / "model.safetensors"
    whole = file.read_bytes()
    damages = [flipped(whole, at, at % 8) for at in places(len(whole), dense=60, others=100)]
    damages += [whole[:at] for at in places(len(whole), dense=20, others=30)]
    damages += [whole + b"\0", whole + whole]
    for damaged in damages:
        file.write_bytes(damaged)
        with pytest.raises(CheckpointError, match=re.escape(str(file))):
            load_model(tmp_path)
    file.unlink()
    with pytest.raises(CheckpointError, match=r"model\.safetensors: cannot be read"):
        load_model(tmp_path)
    file.write_bytes(whole)
    assert which_loads(tmp_path) == 0


def test_any_change_of_model_json_is_noticed(tmp_path: Path) -> None:
    save(tmp_path, 0)
    file = tmp_path / "model.json"
    whole = file.read_bytes()
    intact = read_model_json(tmp_path)
    for at in places(len(whole), dense=500, others=800):
        file.write_bytes(flipped(whole, at, at % 8))
        try:
            description = read_model_json(tmp_path)
        except CheckpointError:
            continue
        assert description == intact  # \u00E9 is \u00e9
    for at in places(len(whole) - 1, dense=50, others=200):  # the last byte is a line's end
        file.write_bytes(whole[:at])
        with pytest.raises(CheckpointError, match=r"damaged or no JSON"):
            read_model_json(tmp_path)


def test_model_json_is_edited_by_hand_only_on_purpose(tmp_path: Path) -> None:
    save(tmp_path, 0)
    file = tmp_path / "model.json"
    file.write_text(file.read_text().replace('"cat"', '"tabby"'))
    with pytest.raises(CheckpointError, match=r"'checksum': .*remove this field if the edit is"):
        read_model_json(tmp_path)
    edited(tmp_path, lambda description: None)  # which removes it
    assert load_model(tmp_path).labels[1] == "tabby"
    write_model_json(tmp_path, read_model_json(tmp_path))
    assert "checksum" in json.loads(file.read_bytes())
    assert load_model(tmp_path).labels[1] == "tabby"


def edited(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    file = folder / "model.json"
    description = json.loads(file.read_bytes())
    description.pop("checksum", None)
    change(description)
    file.write_text(json.dumps(description))


def every_field(value: dict[str, Any], path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for name, part in value.items():
        yield (*path, name)
        if isinstance(part, dict) and name not in ("preprocess", "provenance", "decoding"):
            yield from every_field(part, (*path, name))


def parent(description: dict[str, Any], path: tuple[str, ...]) -> dict[str, Any]:
    for name in path[:-1]:
        description = description[name]
    return description


ARTIFACT = {
    "format": "onnx",
    "file": "model.onnx",
    "sha256": "0" * 64,
    "input": {
        "name": "image",
        "shape": ["batch", 3, 32, 32],
        "dtype": "float32",
        "layout": "NCHW",
    },
    "output": {"name": "logits", "shape": [None, 3]},
}


def test_each_field_is_required_and_of_its_type(tmp_path: Path) -> None:
    save(tmp_path, 0)
    edited(tmp_path, lambda d: d.update(artifact=ARTIFACT))
    whole = (tmp_path / "model.json").read_bytes()
    description = read_model_json(tmp_path)
    wrong: list[Any] = [None, True, 17, -1.5, "text", [], {}, [[]], {"a": {}}]
    paths = list(every_field(description))
    assert len(paths) > 25
    for path in paths:
        holder = ".".join(path)
        if path != ("artifact",):
            edited(tmp_path, lambda d, path=path: parent(d, path).pop(path[-1]))
            with pytest.raises(CheckpointError, match=f"field '{holder}': is missing"):
                read_model_json(tmp_path)
        intact = parent(description, path)[path[-1]]
        for value in wrong:
            # any number is a width or an epsilon, any object or text a preprocessing or a name
            alike = type(value) is type(intact) or (type(intact) is float and value == 17)
            if alike or (path[-1] == "dropout" and value is None):
                continue
            (tmp_path / "model.json").write_bytes(whole)
            edited(tmp_path, lambda d, p=path, v=value: parent(d, p).update({p[-1]: v}))
            with pytest.raises(CheckpointError, match=rf"model\.json: field '{holder}"):
                read_model_json(tmp_path)
        (tmp_path / "model.json").write_bytes(whole)
    assert read_model_json(tmp_path) == description


def test_the_fields_of_a_spec_are_all_checked() -> None:
    assert list(contract_module._SPEC_FIELDS) == [field.name for field in fields(ModelSpec)]


HOSTILE: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "another program's": (lambda d: d.update(format="other"), "'format'"),
    "newer": (lambda d: d.update(version=2), "newer mobilenet.*pip install --upgrade mobilenet"),
    "version 0": (lambda d: d.update(version=0), "'version'"),
    "huge version": (lambda d: d.update(version=10**4000), "'version'"),
    "unknown task": (lambda d: d.update(task="x" * 100_000), "'task'"),
    "unknown model": (lambda d: d["model"].update(name="x" * 100_000), "'model'"),
    "unknown field": (lambda d: d["model"].update(surprise=1), "'model.surprise'"),
    "long field": (lambda d: d["model"].update({"x" * 100_000: 1}), "'model.xxx"),
    "zero width": (lambda d: d["model"].update(width=0), "'model'"),
    "negative width": (lambda d: d["model"].update(width=-1.0), "'model.width'"),
    "unknown section": (lambda d: d.update(surprise=1), "'surprise'"),
    "checksum of another": (lambda d: d.update(checksum="0" * 64), "'checksum'"),
    "no checksum": (lambda d: d.update(checksum=None), "'checksum'"),
    "endless width": (lambda d: d["model"].update(width=1.7e308), "'model'"),
    "wide": (lambda d: d["model"].update(width=1e300), "'model.rows'"),
    "integer width": (lambda d: d["model"].update(width=10**4000), "'model.width'"),
    "many classes": (lambda d: d["model"].update(classes=10**4000), "'labels'"),
    "no classes": (lambda d: (d["model"].update(classes=0), d.update(labels=[])), "'model'"),
    "odd stride": (lambda d: d["model"].update(output_stride=7), "'model'"),
    "odd padding": (lambda d: d["model"].update(padding="none"), "'model'"),
    "odd rule": (lambda d: d["model"].update(width_rule="mine"), "'model'"),
    "dropout 2": (lambda d: d["model"].update(dropout=2), "'model.dropout'"),
    "momentum 2": (lambda d: d["model"].update(bn_momentum=2.0), "'model.bn_momentum'"),
    "negative eps": (lambda d: d["model"].update(bn_eps=-1e-5), "'model.bn_eps'"),
    "changed row": (lambda d: d["model"]["rows"][3].update(stride=2), "'model.rows'"),
    "missing row": (lambda d: d["model"]["rows"].pop(), "'model.rows'"),
    "other width": (lambda d: d["model"].update(width=0.5), "'model.rows'"),
    "nested rows": (lambda d: d["model"].update(rows=[[[[]]]] * 14), "'model.rows'"),
    "few labels": (lambda d: d.update(labels=["a"]), "1 labels for 3 classes"),
    "labels of numbers": (lambda d: d.update(labels=[1, 2, 3]), "'labels'"),
    "other decoding": (lambda d: d.update(decoding={"activation": "none"}), "'decoding'"),
    "short hash": (lambda d: d["weights"].update(sha256="abc"), "'weights.sha256'"),
    "hash that is a path": (lambda d: d["weights"].update(sha256="../" * 21 + "x"), "sha256"),
    "path": (lambda d: d["weights"].update(file="../other/model.safetensors"), "'weights.file'"),
    "absolute path": (lambda d: d["weights"].update(file="/etc/passwd"), "'weights.file'"),
    "another file": (lambda d: d["weights"].update(file="other.safetensors"), "'weights.file'"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_model_json_is_refused(case: str, tmp_path: Path) -> None:
    save(tmp_path, 0)
    change, message = HOSTILE[case]
    edited(tmp_path, change)
    with pytest.raises(CheckpointError, match=message) as caught:
        load_model(tmp_path)
    assert str(tmp_path / "model.json") in str(caught.value)
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize(
    "name",
    ["../model.onnx", "/model.onnx", "a/b", "a\\b", "c:model.onnx", "..", ".", "", "a\0b"],
)
def test_the_file_of_an_artifact_lies_in_its_folder(name: str, tmp_path: Path) -> None:
    save(tmp_path, 0)
    edited(tmp_path, lambda d: d.update(artifact={**ARTIFACT, "file": name}))
    with pytest.raises(CheckpointError, match=r"'artifact\.file'"):
        read_model_json(tmp_path)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\0" * 100,
        b"[]",
        b"null",
        b'"text"',
        b"{" * 100_000,
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b'{"format": NaN}',
        b'{"format": 1e999}',
        b'{"format": ' + b"[" * 101 + b"]" * 101 + b"}",
        b'{"version": ' + b"9" * 100_000 + b"}",
        b"\xff\xfe{\0}\0",
        b'\xef\xbb\xbf{"format": "mobilenet"}',
        b'{"format": "\xff"}',
    ],
)
def test_what_is_no_json_object_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "model.json").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"model\.json"):
        read_model_json(tmp_path)


def test_links_pipes_folders_and_giants_are_refused(tmp_path: Path) -> None:
    run, outside = tmp_path / "run", tmp_path / "outside"
    save(run, 0)
    save(outside, 0)
    for name in ("model.json", "model.safetensors"):
        file = run / name
        whole = file.read_bytes()
        for make in (
            lambda file, name=name: file.symlink_to(outside / name),
            lambda file: file.symlink_to("/dev/zero"),
            lambda file: file.symlink_to("nowhere"),
            lambda file: os.mkfifo(file),
            lambda file: file.mkdir(),
        ):
            file.unlink()
            make(file)
            with pytest.raises(CheckpointError, match="a link, folder or device"):
                load_model(run)
            file.rmdir() if file.is_dir() and not file.is_symlink() else file.unlink()
            file.write_bytes(whole)
        os.truncate(file, 1 << 40)
        with pytest.raises(CheckpointError, match="1099511627776 bytes, expected at most"):
            load_model(run)
        file.write_bytes(whole)
    assert which_loads(run) == 0


def test_a_small_file_cannot_ask_for_a_large_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(tmp_path, 0)
    spec = replace(SPEC, width=1000.0)
    sha256 = file_sha256(tmp_path / "model.safetensors")
    write_model_json(
        tmp_path,
        describe_model(
            spec,
            preprocess={},
            labels=["a", "b", "c"],
            decoding=SOFTMAX,
            provenance={},
            weights_sha256=sha256,
        ),
    )

    def never(spec: ModelSpec) -> None:
        raise AssertionError("built before its weights were looked at")

    monkeypatch.setattr(model_module, "create_network", never)
    with pytest.raises(CheckpointError, match="too few for the network's weights"):
        load_model(tmp_path)


def test_weights_that_agree_with_their_hash_but_not_with_the_network(tmp_path: Path) -> None:
    save(tmp_path, 0)
    for content, message in [
        (b"\0" * 60_000, "damaged or no safetensors file"),
        (checkpoint.tensors.encode_tensors({"x": torch.zeros(15_000)}), "the state no such tensor"),
    ]:
        (tmp_path / "model.safetensors").write_bytes(content)
        sha256 = hashlib.sha256(content).hexdigest()
        edited(tmp_path, lambda d, sha256=sha256: d["weights"].update(sha256=sha256))
        with pytest.raises(CheckpointError, match=message):
            load_model(tmp_path)


def test_folders_that_hold_no_model(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "missing", str(tmp_path)):
        with pytest.raises(CheckpointError, match=r"no model\.json there"):
            load_model(folder)
    save(tmp_path, 0)
    edited(tmp_path, lambda d: d.update(artifact=ARTIFACT))
    assert which_loads(tmp_path) == 0
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match="an exported model, without weights for torch"):
        load_model(tmp_path)


def test_model_json_is_read_without_torch(tmp_path: Path) -> None:
    save(tmp_path, 0)
    program = """
        import sys
        sys.modules["torch"] = sys.modules["safetensors"] = None
        from mobilenet.checkpoint import read_model_json
        print(read_model_json(sys.argv[1])["labels"][0])
    """
    command = [sys.executable, "-c", textwrap.dedent(program), str(tmp_path)]
    assert subprocess.run(command, check=True, capture_output=True, text=True).stdout == "0\n"


def test_a_missing_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(tmp_path, 0)
    monkeypatch.setattr(checkpoint.tensors, "find_spec", lambda name: None)
    with pytest.raises(MissingDependency, match=r"pip install 'mobilenet\[train\]'"):
        load_model(tmp_path)
    with pytest.raises(MissingDependency, match=r"pip install 'mobilenet\[train\]'"):
        save(tmp_path, 0)


def test_no_pickle_is_read_or_written() -> None:
    package = Path(mobilenet.__file__).parent
    sources = list(package.rglob("*.py"))
    assert len(sources) > 10
    for source in sources:
        text = source.read_text()
        for unsafe in (
            r"^\s*(import|from)\s+(dill|joblib|shelve|marshal)",
            r"^\s*from\s+c?pickle",
            r"pickle\.(?!UnpicklingError)\w",  # the error may be caught
            r"torch\.save\(",
            r"allow_pickle\s*=\s*True",
            r"weights_only\s*=\s*False",
        ):
            assert not re.search(unsafe, text, re.M), source
        # only where pretrained weights are read, and there without code
        for call in re.findall(r"torch\.load\(.*?\)", text, re.S):
            assert source.relative_to(package).parts[0] in ("weights", "weights.py"), source
            assert re.search(r"weights_only\s*=\s*True", call), source


# ------------------------------------------------------------------------------------------ hashes


def test_state_sha256_tells_states_apart_by_name_type_shape_and_bits() -> None:
    base = {"a": torch.tensor([[1.0, 2.0], [3.0, 4.0]]), "b": torch.tensor(1)}
    alike = {"b": torch.tensor(1), "a": torch.tensor([[1.0, 3.0], [2.0, 4.0]]).T}
    others: list[dict[str, Tensor]] = [
        {},
        {"a": base["a"]},
        {"a": base["a"], "c": base["b"]},
        {"a": base["a"].reshape(4), "b": base["b"]},
        {"a": base["a"].double(), "b": base["b"]},
        {"a": base["a"].view(torch.int32), "b": base["b"]},
        {"a": -base["a"], "b": base["b"]},
        {"a": base["a"], "b": base["b"].reshape(1)},
        {"a": torch.zeros(2), "b": base["b"]},
        {"a": -torch.zeros(2), "b": base["b"]},
        {"a": torch.empty(0, 2), "b": base["b"]},
        {"a": torch.empty(2, 0), "b": base["b"]},
        {"a": base["a"].bfloat16(), "b": base["b"]},
    ]
    assert state_sha256(base) == state_sha256(alike)
    hashes = [state_sha256(state) for state in [base, *others]]
    assert len(set(hashes)) == len(hashes)


def test_file_sha256_is_sha256(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"abc")
    # FIPS 180-2, appendix B.1
    expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert file_sha256(tmp_path / "file") == expected


# ---------------------------------------------------------------------------- training checkpoints


def tensors_of(step: int) -> dict[str, Tensor]:
    """What is saved at a step, as a function of it."""
    generator = torch.Generator().manual_seed(step)
    return {
        "weight": torch.randn(40, 5, generator=generator),
        "count": torch.tensor(step),
        "random": generator.get_state(),
    }


def save_step(store: CheckpointStore, step: int) -> None:
    store.save(step, tensors_of(step), {"step": step, "name": f"step {step}"})


def step_that_loads(folder: Path) -> int | None:
    """The step of the newest checkpoint, whose content must be what was saved at that step."""
    saved = CheckpointStore(folder).latest()
    if saved is None:
        return None
    assert same(saved.tensors, tensors_of(saved.step))
    assert saved.scalars == {"step": saved.step, "name": f"step {saved.step}"}
    return saved.step


def test_the_newest_checkpoint_is_loaded_and_two_are_kept(tmp_path: Path) -> None:
    folder = tmp_path / "run" / "checkpoints"
    store = CheckpointStore(folder)
    assert store.latest() is None
    for step in (1, 5, 123, 100_000_001):
        save_step(store, step)
        assert step_that_loads(folder) == step
    assert names(folder) == ["step-00000123", "step-100000001"]
    for step in (123, 100_000_001):
        kinds = [name.partition("-")[0] for name in names(folder / f"step-{step:08d}")]
        assert kinds == ["manifest.json", "scalars", "tensors"]
    CheckpointStore(folder, keep=1).save(100_000_002, {}, {})
    assert names(folder) == ["step-100000002"]
    store.clear()
    assert names(folder) == []
    assert store.latest() is None
    for keep in (0, -1):
        with pytest.raises(UsageError, match="keep"):
            CheckpointStore(folder, keep=keep)
    with pytest.raises(UsageError, match="step -1"):
        store.save(-1, {}, {})


def some_tensors() -> dict[str, Tensor]:
    base = torch.arange(24, dtype=torch.float32)
    raw = torch.arange(256, dtype=torch.uint8)
    kinds = (
        "bool uint8 uint16 uint32 uint64 int8 int16 int32 int64 float16 bfloat16 float32 float64 "
        "complex64 float8_e4m3fn float8_e4m3fnuz float8_e5m2 float8_e5m2fnuz"
    )
    # all bytes, and so every kind of NaN
    found = {
        kind: (raw % 2 if kind == "bool" else raw).view(getattr(torch, kind))
        for kind in kinds.split()
    }
    return found | {
        "scalar": torch.tensor(7),
        "scalar bfloat16": torch.tensor(0.1, dtype=torch.bfloat16),
        "empty": torch.empty(0),
        "empty 3x0x2": torch.empty(3, 0, 2, dtype=torch.int64),
        "negative zero and others": torch.tensor([-0.0, math.inf, -math.inf, math.nan, 1e-45]),
        "transposed": base.reshape(4, 6).T,
        "every third": base[::3],
        "expanded": base[:4].expand(5, 4),
        "channels last": torch.rand(2, 3, 4, 5).to(memory_format=torch.channels_last),
        "conjugate": torch.tensor([1 + 2j, 3 - 4j], dtype=torch.complex64).conj(),
        "whole": base,
        "the same": base,
        "a part": base[3:7],
        "overlapping": base[5:12],
        "parameter": nn.Parameter(torch.rand(3)),
        "of a graph": nn.Parameter(torch.rand(3)) * 2,
        "größe/0.x y": torch.rand(1),
        "": torch.rand(1),
    }


def test_tensors_of_any_kind_come_back_bit_for_bit(tmp_path: Path) -> None:
    tensors = some_tensors()
    before = {name: bits(tensor.detach().resolve_conj()) for name, tensor in tensors.items()}
    store = CheckpointStore(tmp_path)
    store.save(0, tensors, {})
    saved = store.latest()
    assert saved is not None
    assert saved.tensors.keys() == tensors.keys()
    for name, tensor in saved.tensors.items():
        assert tensor.dtype == tensors[name].dtype, name
        assert tensor.shape == tensors[name].shape, name
        assert bits(tensor) == before[name], name
    assert state_sha256(saved.tensors) == state_sha256(
        {name: tensor.detach().resolve_conj() for name, tensor in tensors.items()}
    )
    saved.tensors["whole"].add_(1)  # writable, and shared with no other
    assert torch.equal(saved.tensors["the same"], torch.arange(24.0))


@pytest.mark.parametrize(
    ("tensors", "scalars", "message"),
    [
        ({"x": torch.zeros(2, dtype=torch.complex128)}, {}, "'x': complex128"),
        ({"x": torch.zeros(4, dtype=torch.uint8).view(torch.float8_e8m0fnu)}, {}, "e8m0fnu"),
        ({"x": torch.eye(3).to_sparse()}, {}, "'x': float32 torch.sparse_coo"),
        ({"x": torch.zeros(3, device="meta")}, {}, "'x': .*on meta"),
        ({"__metadata__": torch.zeros(3)}, {}, "'__metadata__'"),
        ({"\udcff": torch.zeros(3)}, {}, "not valid Unicode"),
        ({}, {"loss": math.nan}, "step-00000007: not saved, .*flatten_state"),
        ({}, {"x": {1, 2}}, "step-00000007: not saved, .*flatten_state"),
    ],
)
def test_what_cannot_be_saved_is_named_and_the_earlier_stays(
    tensors: dict[str, Tensor], scalars: dict[str, Any], message: str, tmp_path: Path
) -> None:
    store = CheckpointStore(tmp_path)
    save_step(store, 6)
    with pytest.raises(CheckpointError, match=message):
        store.save(7, tensors, scalars)
    assert step_that_loads(tmp_path) == 6
    assert names(tmp_path) == ["step-00000006"]


def test_a_step_saved_again_replaces_itself_and_heals(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path)
    save_step(store, 1)
    store.save(2, {"x": torch.zeros(3)}, {"half": "done"})
    save_step(store, 2)
    assert step_that_loads(tmp_path) == 2
    assert len(names(tmp_path / "step-00000002")) == 3
    file = next((tmp_path / "step-00000002").glob("tensors-*"))
    file.write_bytes(b"damaged")
    assert step_that_loads(tmp_path) == 1
    save_step(store, 2)
    assert step_that_loads(tmp_path) == 2
    assert names(tmp_path) == ["step-00000001", "step-00000002"]


def test_a_save_at_a_lower_step_ends_the_run_that_went_further(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path)
    for step in (10, 20):
        save_step(store, step)
    save_step(store, 15)
    assert step_that_loads(tmp_path) == 15
    assert names(tmp_path) == ["step-00000010", "step-00000015"]


def test_a_damaged_checkpoint_is_passed_over_aloud(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = CheckpointStore(tmp_path)
    for step in (1, 2):
        save_step(store, step)
    next((tmp_path / "step-00000002").glob("scalars-*")).unlink()
    assert step_that_loads(tmp_path) == 1
    assert re.search(r"passed over: .*step-00000002", capsys.readouterr().err)
    (tmp_path / "step-00000001" / "manifest.json").write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"none of 2 checkpoints is intact.*--resume"):
        store.latest()
    save_step(store, 3)
    assert step_that_loads(tmp_path) == 3


def test_an_interrupted_save_does_not_count_among_those_kept(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path)
    save_step(store, 1)
    (tmp_path / "step-00000002").mkdir()
    save_step(store, 3)
    assert names(tmp_path) == ["step-00000001", "step-00000003"]


def test_junk_beside_the_checkpoints_is_left_alone(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path / "checkpoints")
    save_step(store, 5)
    junk = ["step-", "step-5", "step-00000009x", "step-0000000٣", "notes", "step-" + "9" * 30]
    for name in junk:
        (tmp_path / "checkpoints" / name).mkdir()
        (tmp_path / "checkpoints" / name / "manifest.json").write_bytes(b"junk")
    (tmp_path / "checkpoints" / "step-00000099").touch()
    (tmp_path / "checkpoints" / "step-00000098").symlink_to(tmp_path)
    (tmp_path / "checkpoints" / "step-00000097").mkdir()  # a save that was killed
    (tmp_path / "checkpoints" / "step-00000097" / "tensors-0.safetensors").touch()
    assert step_that_loads(tmp_path / "checkpoints") == 5
    save_step(store, 6)
    save_step(store, 7)
    left = {*junk, "step-00000099", "step-00000098", "step-00000006", "step-00000007"}
    assert set(names(tmp_path / "checkpoints")) == left


def test_a_file_in_place_of_the_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").touch()
    store = CheckpointStore(tmp_path / "checkpoints")
    with pytest.raises(CheckpointError, match="checkpoints: cannot be read: Not a directory"):
        store.latest()
    with pytest.raises(CheckpointError, match="checkpoints: cannot be written: Not a directory"):
        save_step(store, 1)


def test_any_change_of_any_file_of_a_checkpoint_is_noticed(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path)
    save_step(store, 1)
    folder = tmp_path / "step-00000001"
    for name in names(folder):
        file = folder / name
        whole = file.read_bytes()
        damages = [
            flipped(whole, at, bit)
            for at in places(len(whole), dense=250, others=100)
            for bit in {at % 8, (at + 3) % 8}
        ]
        damages += [whole[:at] for at in places(len(whole), dense=100, others=100)]
        damages += [whole + b"}", whole + whole]
        for damaged in damages:
            file.write_bytes(damaged)
            with pytest.raises(CheckpointError, match="none of 1 checkpoints"):
                store.latest()
        file.unlink()
        if name != "manifest.json":
            with pytest.raises(CheckpointError, match="none of 1 checkpoints"):
                store.latest()
        file.write_bytes(whole)
    assert step_that_loads(tmp_path) == 1


def test_links_and_wrong_types_in_a_checkpoint_are_refused(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path / "a")
    save_step(store, 1)
    folder = tmp_path / "a" / "step-00000001"
    for name in names(folder):
        (folder / name).rename(tmp_path / name)
        (folder / name).symlink_to(tmp_path / name)
        with pytest.raises(CheckpointError, match="a link, folder or device"):
            store.latest()
        (folder / name).unlink()
        (tmp_path / name).rename(folder / name)
    file = folder / "manifest.json"
    manifest = json.loads(file.read_bytes())
    changes: list[dict[str, Any]] = [
        {"format": 1},
        {"format": "other"},
        {"version": 2},
        {"version": True},
        {"step": 2},
        {"step": 1.0},
        {"tensors": []},
        {"tensors": {"sha256": "../" * 21 + "x", "size": 1}},
        {"tensors": {**manifest["tensors"], "size": -1}},
        {"tensors": {**manifest["tensors"], "size": 1 << 60}},
        {"scalars": manifest["tensors"]},
        {"scalars": None},
    ]
    for change in changes:
        file.write_text(json.dumps({**manifest, **change}))
        with pytest.raises(CheckpointError, match="none of 1 checkpoints"):
            store.latest()
    file.write_text(json.dumps(manifest))
    assert step_that_loads(tmp_path / "a") == 1


# ------------------------------------------------------------ training checkpoints and accidents

STORE_CALLS = {"make_dir", "write", "fsync", "replace", "fsync_dir", "remove", "remove_dir"}


def calls_of_a_step(folder: Path) -> int:
    store = CheckpointStore(folder)
    for step in (1, 2):
        save_step(store, step)
    calls = CountedCalls()
    with installed(calls):
        save_step(store, 3)
    assert set(calls.names) == STORE_CALLS
    return len(calls.names)


def resume_after(folder: Path, step: int) -> None:
    """What a run that goes on does: saves come through, and leave two checkpoints."""
    store = CheckpointStore(folder)
    for later in (step + 1, step + 2):
        save_step(store, later)
        assert step_that_loads(folder) == later
    assert names(folder) == [f"step-{later:08d}" for later in (step + 1, step + 2)]


@pytest.mark.parametrize("again", [False, True], ids=["a new step", "the same step"])
def test_kill_at_each_call_of_a_checkpoint(tmp_path: Path, again: bool) -> None:
    seen = set()
    for at in range(calls_of_a_step(tmp_path / "count")):
        folder = tmp_path / str(at)
        store = CheckpointStore(folder)
        for step in (1, 2):
            save_step(store, step)
        if again:  # what the killed run overwrites differs from what it writes
            store.save(3, {"other": torch.ones(100)}, {"other": True})
        try:
            with installed(KilledCalls(at)):
                save_step(store, 3)
        except Crash:
            saved = CheckpointStore(folder).latest()
            assert saved is not None
            if not (again and same(saved.tensors, {"other": torch.ones(100)})):
                assert step_that_loads(folder) in ((3,) if again else (2, 3))
            seen.add("other" if "other" in saved.tensors else saved.step)
        resume_after(folder, 3)
    assert seen == ({"other", 3} if again else {2, 3})


def test_kill_at_each_call_of_the_first_checkpoint(tmp_path: Path) -> None:
    at, seen = 0, []
    while True:
        folder = tmp_path / str(at) / "checkpoints"
        try:
            with installed(KilledCalls(at)):
                save_step(CheckpointStore(folder), 3)
        except Crash:
            seen.append(step_that_loads(folder))
        else:
            break
        resume_after(folder, 3)
        at += 1
    assert set(seen) == {None, 3}
    assert seen == sorted(seen, key=lambda step: step or 0)


@pytest.mark.parametrize(
    "failing",
    [
        lambda at: FailingCalls(at, errno.ENOSPC),
        lambda at: FailingCalls(at, errno.EIO),
        lambda at: FullDisk(at),
    ],
    ids=["ENOSPC once", "EIO once", "full disk"],
)
@pytest.mark.parametrize("again", [False, True], ids=["a new step", "the same step"])
def test_failure_at_each_call_of_a_checkpoint(
    failing: Callable[[int], CountedCalls],
    again: bool,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    raised = 0
    for at in range(calls_of_a_step(tmp_path / "count")):
        folder = tmp_path / str(at)
        store = CheckpointStore(folder)
        for step in (1, 2):
            save_step(store, step)
        if again:
            store.save(3, {"other": torch.ones(100)}, {"other": True})
        capsys.readouterr()
        try:
            with installed(failing(at)):
                save_step(store, 3)
        except CheckpointError:
            raised += 1
            if again:
                saved = CheckpointStore(folder).latest()
                assert saved is not None
                assert saved.step == 3
                if "other" not in saved.tensors:
                    assert step_that_loads(folder) == 3
            else:
                assert step_that_loads(folder) in (2, 3)
                if step_that_loads(folder) == 2:  # nothing that takes room on a full disk
                    assert names(folder) == ["step-00000001", "step-00000002"]
        else:  # only what follows a finished save may fail without an error
            assert step_that_loads(folder) == 3
            tidy = names(folder) == ["step-00000002", "step-00000003"] and (
                len(names(folder / "step-00000003")) == 3
            )
            assert ("an old checkpoint stays" in capsys.readouterr().err) != tidy
        resume_after(folder, 3)
    assert raised >= 11


def test_power_loss_at_each_call_of_a_checkpoint(tmp_path: Path) -> None:
    chance = random.Random(0)
    seen = set()
    for at in range(calls_of_a_step(tmp_path / "count") + 1):
        for share in (0.0, 0.5, 1.0):
            folder, disk = tmp_path / "run", tmp_path / "disk"
            store = CheckpointStore(folder)
            for step in (1, 2):
                save_step(store, step)
            calls = PowerLoss(folder, at)
            finished = False
            try:
                with installed(calls):
                    save_step(store, 3)
                    finished = True
            except Crash:
                pass
            calls.survivors(disk, chance, share)
            calls.close()
            loaded = step_that_loads(disk)
            assert loaded in ((3,) if finished else (2, 3))
            seen.add(loaded)
            resume_after(disk, 3)
            shutil.rmtree(folder)
            shutil.rmtree(disk)
    assert seen == {2, 3}


KILLS = """
    import os, random, signal, sys
    import torch
    torch.set_num_threads(1)
    from pathlib import Path
    from faults import CountedCalls, installed
    from test_checkpoint import CheckpointStore, save, save_step, step_that_loads, which_loads

    class Told(CountedCalls):
        def reached(self, name):
            os.write(told, b".")
            return False

    folder, trials = Path(sys.argv[1]), int(sys.argv[2])
    chance = random.Random(0)
    outcomes, before, step = set(), None, 0
    for trial in range(trials):
        begin = step + 1
        telling, told = os.pipe()
        child = os.fork()
        if child == 0:
            store = CheckpointStore(folder / "checkpoints")
            with installed(Told()):
                for step in range(begin, begin + 1_000_000):
                    save_step(store, step)
                    os.write(told, b"C")
                    save(folder, step % 3)
                    os.write(told, b"M")
        os.close(told)
        heard = b""
        for _ in range(chance.randrange(50)):  # about one round and a half
            heard += os.read(telling, 1)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        with open(telling, "rb") as pipe:
            heard += pipe.read()

        last = begin - 1 + heard.count(b"C")
        step = step_that_loads(folder / "checkpoints") or 0
        assert step in (last, last + 1), (trial, step, last)
        saved = begin - 1 + heard.count(b"M")
        whole = saved % 3 if b"M" in heard else before
        model = which_loads(folder)
        assert model in (whole, (saved + 1) % 3), (trial, model, whole, saved)
        outcomes |= {("checkpoint", step - last), ("model", model != whole)}
        before = model
    print(step, len(outcomes))
"""


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="kills forked processes")
def test_three_hundred_processes_killed_while_they_save(tmp_path: Path) -> None:
    # one interpreter forks them all, so that torch is imported once
    command = [sys.executable, "-c", textwrap.dedent(KILLS), str(tmp_path), "300"]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    steps, outcomes = map(int, done.stdout.split())
    assert steps >= 60  # whole saves between the kills
    assert outcomes == 4  # of both kinds, kills before and after the commit
    save(tmp_path, 0)
    assert set(names(tmp_path)) == {"checkpoints", "model.json", "model.safetensors"}


# ------------------------------------------------------------------------------------ nested state


def round_trip(state: Any) -> Any:
    tensors, scalars = flatten_state(state)
    return unflatten_state(tensors, json.loads(json.dumps(scalars, allow_nan=False)))


def equal(one: Any, other: Any) -> bool:
    """Equal in value, type and order; NaN is equal to itself, 0.0 not to -0.0."""
    if type(one) is not type(other):
        return False
    if isinstance(one, Tensor):
        return same({"": one}, {"": other})
    if isinstance(one, np.ndarray):
        return one.dtype == other.dtype and one.shape == other.shape and bool((one == other).all())
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(equal, one, other))
    if isinstance(one, dict):
        return equal(list(one), list(other)) and equal(list(one.values()), list(other.values()))
    return repr(one) == repr(other)


LEAVES = (
    st.none()
    | st.booleans()
    | st.integers(-(2**200), 2**200)
    | st.floats()
    | st.text()
    | st.builds(torch.tensor, st.floats(width=32) | st.integers(-100, 100) | st.booleans())
)
KEYS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
NESTED = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.lists(inner, max_size=4).map(tuple)
        | st.dictionaries(KEYS, inner, max_size=4)
    ),
    max_leaves=12,
)


@given(NESTED)
def test_any_nested_state_comes_back(state: Any) -> None:
    assert equal(round_trip(state), state)


def test_states_that_resemble_the_encoding_come_back() -> None:
    tensor = torch.arange(3)
    state = {
        "tensor": "x",
        "dict": [["dict", 1]],
        "float": "nan",
        "numbers": (math.inf, -math.inf, math.nan, -0.0, 1e22, 0.1, 2**127, -1),
        "alike": {0: tensor, "0": tensor + 1, "a/b": tensor + 2, "a": {"b": tensor + 3}},
        "__metadata__": tensor,
        "empty": [(), [], {}],
        None: {True: 1, 2: False},
    }
    assert equal(round_trip(state), state)
    assert equal(round_trip({"__metadata__": tensor}), {"__metadata__": tensor})
    assert equal(round_trip(tensor), tensor)
    assert equal(round_trip(OrderedDict(b=1, a=2)), {"b": 1, "a": 2})


def test_random_generators_go_on_where_they_were() -> None:
    for kind in (np.random.PCG64, np.random.Philox, np.random.MT19937):
        generator = np.random.Generator(kind(3))
        generator.random(5)
        state = generator.bit_generator.state
        restored = np.random.Generator(kind(0))
        restored.bit_generator.state = round_trip(state)
        assert equal(round_trip(state), state)
        assert (generator.integers(2**60, size=50) == restored.integers(2**60, size=50)).all()
    torch_generator = torch.Generator().manual_seed(5)
    torch.rand(7, generator=torch_generator)
    other = torch.Generator()
    other.set_state(round_trip(torch_generator.get_state()))
    assert torch.equal(torch.rand(9, generator=torch_generator), torch.rand(9, generator=other))


OPTIMIZERS: dict[str, Callable[[Any], torch.optim.Optimizer]] = {
    "sgd": lambda groups: torch.optim.SGD(groups, lr=0.1, momentum=0.9, nesterov=True),
    "adamw": lambda groups: torch.optim.AdamW(groups, lr=0.01, amsgrad=True),
    "adamw, tensor lr": lambda groups: torch.optim.AdamW(groups, lr=torch.tensor(0.01)),
    "rmsprop": lambda groups: torch.optim.RMSprop(groups, lr=0.01, momentum=0.9, centered=True),
}


class Training:
    """A small model, its optimizer and schedule."""

    def __init__(self, kind: str, seed: int) -> None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 2, 1))
        decayed, plain = [], []
        for parameter in self.model.parameters():
            (decayed if parameter.ndim > 1 else plain).append(parameter)
        groups = [{"params": decayed, "weight_decay": 1e-3}, {"params": plain, "weight_decay": 0.0}]
        self.optimizer = OPTIMIZERS[kind](groups)
        warm = torch.optim.lr_scheduler.LinearLR(self.optimizer, 0.1, total_iters=3)
        cosine = torch.optim.lr_scheduler.CosineAnnealingLR(self.optimizer, 10)
        self.schedule = torch.optim.lr_scheduler.SequentialLR(self.optimizer, [warm, cosine], [3])
        self.generator = torch.Generator().manual_seed(seed)

    def step(self) -> None:
        self.optimizer.zero_grad()
        images = torch.rand(2, 3, 8, 8, generator=self.generator)
        self.model(images).square().mean().backward()
        self.optimizer.step()
        self.schedule.step()

    def state(self) -> dict[str, Any]:
        return {
            "model": dict(self.model.state_dict()),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "generator": self.generator.get_state(),
        }

    def load(self, state: dict[str, Any]) -> None:
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])
        self.generator.set_state(state["generator"])


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_training_goes_on_from_a_checkpoint_as_if_undisturbed(kind: str, tmp_path: Path) -> None:
    undisturbed = Training(kind, seed=1)
    for _ in range(5):
        undisturbed.step()
    store = CheckpointStore(tmp_path)
    store.save(5, *flatten_state(undisturbed.state()))

    resumed = Training(kind, seed=2)
    saved = store.latest()
    assert isinstance(saved, Saved)
    state = unflatten_state(saved.tensors, saved.scalars)
    assert equal(state, undisturbed.state())
    resumed.load(state)
    for _ in range(5):
        undisturbed.step()
        resumed.step()
    assert state_sha256(resumed.model.state_dict()) == state_sha256(undisturbed.model.state_dict())
    assert equal(resumed.state(), undisturbed.state())


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({"a": {"b": [1, object()]}}, "state/a/b/1: a value of type object"),
        ({"a": {1, 2}}, "state/a: a value of type set"),
        ({"a": np.float64(1)}, "state/a: a value of type float64"),
        ({"a": Counter("aab")}, "state/a: a value of type Counter"),
        ({"a": torch.Size([1])}, "state/a: a value of type Size"),
        ({"a": np.array([object()])}, "state/a: a value of type ndarray"),
        ({"a": torch.float32}, "state/a: a value of type dtype"),
        ({"a": {(1, 2): 3}}, "state/a: a key of type tuple"),
    ],
)
def test_a_value_that_would_come_back_as_another_is_refused(state: Any, message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        flatten_state(state)


@pytest.mark.parametrize(
    "scalars",
    [
        {},
        {"other": 1},
        {"state": {}},
        {"state": {"dict": 1}},
        {"state": {"dict": [[1]]}},
        {"state": {"dict": [[[1], 2]]}},
        {"state": {"tuple": [], "list": []}},
        {"state": {"set": []}},
        {"state": {"float": "much"}},
        {"state": {"tensor": "missing"}},
        {"state": {"tensor": []}},
        {"state": {"tuple": 3}},
    ],
)
def test_a_foreign_encoding_is_refused(scalars: dict[str, Any]) -> None:
    with pytest.raises(CheckpointError, match="not as flatten_state writes it"):
        unflatten_state({}, scalars)


def test_rows_are_those_of_the_network(tmp_path: Path) -> None:
    save(tmp_path, 0)
    rows = read_model_json(tmp_path)["model"]["rows"]
    assert rows == [asdict(block) for block in SPEC.network().blocks]
    assert isinstance(load_model(tmp_path), LoadedModel)
