"""The folder for browsers: in node it is checked to the bit, in a browser it is used."""

import fcntl
import functools
import http.server
import json
import os
import shutil
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from mobilenet.benchmark import benchmark
from mobilenet.checkpoint import load_model, save_model
from mobilenet.errors import CheckpointError, MissingEngine, UsageError
from mobilenet.evaluate import evaluate
from mobilenet.export import export, read_golden
from mobilenet.integer import run_integer
from mobilenet.integer.store import encode_quantised, load_quantised
from mobilenet.models import MODELS
from mobilenet.networks import random_network
from mobilenet.preprocess import slim
from mobilenet.program import LOGITS, program_of
from mobilenet.quantize import quantise_program
from mobilenet.runtime import RUNTIMES, load, read_artifact
from mobilenet.web import PAGE, MissingWebEngine, asset

PROJECT = Path(__file__).parent.parent
SOURCES = [*(PROJECT / "engine").rglob("*.*"), PROJECT / "runs" / "engine_wasm.sh"]
BUILT = PROJECT / "build" / "wasm"  # by make engine-wasm
MISSING = [tool for tool in ("emcc", "cmake", "node") if not shutil.which(tool)]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(MISSING), reason=f"needs {', '.join(MISSING)}"),
]


@pytest.fixture(autouse=True, scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """mobilenet.wasm of these sources: as it was built, or built once for all workers."""
    found = BUILT / "mobilenet.wasm"
    newest = max(path.stat().st_mtime for path in SOURCES)
    if not found.exists() or found.stat().st_mtime < newest:
        root = tmp_path_factory.getbasetemp()
        root = root.parent if "PYTEST_XDIST_WORKER" in os.environ else root
        found = root / "wasm" / "mobilenet.wasm"
        with (root / "wasm.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not (root / "wasm.built").exists():
                command = ("bash", PROJECT / "runs" / "engine_wasm.sh", found.parent)
                environment = os.environ | {"MOBILENET_WASM": str(root / "wasm.built")}
                done = subprocess.run(
                    command, env=environment, capture_output=True, text=True, check=False
                )
                assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MOBILENET_WASM", str(found))
        yield found


@pytest.fixture(scope="module")
def int8_run(small_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`small_run` in int8, with ranges of noise."""
    loaded = load_model(small_run)
    images = np.random.default_rng(0).standard_normal((8, 3, 48, 48), np.float32)
    network = quantise_program(program_of(loaded.module()), [images])
    run = tmp_path_factory.mktemp("int8") / "run"
    save_model(
        run,
        loaded.spec,
        loaded.state,
        preprocess=loaded.preprocess,
        labels=loaded.labels,
        provenance={},
        quantised=encode_quantised(network),
    )
    return run


@pytest.fixture(scope="module")
def web(small_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`small_run` exported for the web. Copy it before changing it."""
    return export(small_run, to="web", out=tmp_path_factory.mktemp("web") / "web").path


def check(folder: Path) -> tuple[int, dict[str, Any]]:
    """What the folder's own check says in node."""
    done = subprocess.run(
        ["node", folder / "check.mjs"], capture_output=True, text=True, check=False
    )
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout)


def test_the_engine_is_small_and_simd(engine: Path) -> None:
    assert engine.stat().st_size < 1_000_000


def test_kernels_agree_with_their_plain_twins(engine: Path) -> None:
    program = engine.parent / "kernels_test.js"
    done = subprocess.run(
        ["node", "--no-experimental-fetch", program, "25", "1", "wasm"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-1000:]
    for kernels in ("float32", "int8", "int8 with wide maps"):
        assert f"wasm {kernels}: 25 cases" in done.stdout


def test_float32_in_node(web: Path) -> None:
    artifact = read_artifact(web)
    assert artifact.description["checked"]["runtime"].startswith("wasm wasm in node")
    code, found = check(web)
    assert (code, found["ok"], found["instruction_set"]) == (0, True, "wasm")
    assert found["max_input_error"] == 0  # the very pixels that Pillow makes
    assert found["max_logit_error"] < 1e-4
    golden = read_golden(artifact)
    logits = load(web)(golden.inputs)
    assert np.abs(logits - golden.logits).max() < 1e-4


def test_int8_has_the_bits_of_the_native_engine(int8_run: Path, tmp_path: Path) -> None:
    folder = export(int8_run, to="web", out=tmp_path / "web").path
    code, found = check(folder)
    assert (code, found["max_logit_error"]) == (0, 0)
    images = np.random.default_rng(1).standard_normal((20, 3, 48, 48), np.float32)
    logits = load(folder, runtime="wasm")(images)
    assert np.array_equal(logits, run_integer(load_quantised(int8_run), images)[LOGITS][:, :, 0, 0])
    try:
        native = load(folder, runtime="engine")(images)
    except MissingEngine:
        pytest.skip("no native engine")
    assert np.array_equal(logits, native)


@pytest.mark.parametrize("name", ["mobilenet_v1", "mobilenet_v2", "mobilenet_v3_large"])
def test_other_networks_and_a_crop_before_the_resize(name: str, tmp_path: Path) -> None:
    spec = replace(MODELS[name], width=0.35, classes=5, padding="same")
    network = random_network(spec, 64)
    save_model(
        tmp_path / "run",
        spec,
        network.state_dict(),
        preprocess=slim(64).to_dict(),
        labels=list("abcde"),
        provenance={},
    )
    folder = export(tmp_path / "run", to="web", out=tmp_path / "web", precision="float32").path
    code, found = check(folder)
    assert (code, found["max_input_error"]) == (0, 0)
    x = np.random.default_rng(2).standard_normal((2, 3, 64, 64), np.float32)
    with torch.inference_mode():
        expected = network.eval()(torch.from_numpy(x)).numpy()
    assert np.abs(load(folder)(x) - expected).max() < 1e-4


def test_the_folder_is_evaluated_as_any_other(
    web: Path, pictures: list[Path], tmp_path: Path
) -> None:
    for label in ("rose", "iris"):
        (tmp_path / label).mkdir()
        for path in pictures[:6]:
            shutil.copy(path, tmp_path / label)
    found = evaluate(web, str(tmp_path), split="all")
    assert found.runtime.startswith("wasm wasm in node")
    assert found.metrics.n == 12


def test_it_is_timed_where_it_is_asked_for(web: Path) -> None:
    found = benchmark(str(web), runtime=("wasm",), rounds=1, runs=2)
    assert [(row.runtime, row.threads) for row in found.results] == [("wasm", 1)]
    assert found.ok


def test_a_changed_folder_is_refused(web: Path, tmp_path: Path) -> None:
    for name in ("mobilenet.wasm", "app.js", "model.mbn"):
        folder = tmp_path / name.partition(".")[0]
        shutil.copytree(web, folder)
        with (folder / name).open("ab") as file:
            file.write(b"\n")
        with pytest.raises(CheckpointError, match=f"{name}: its sha256 is"):
            load(folder)
    folder = tmp_path / "contract"
    shutil.copytree(web, folder)
    text = (folder / "model.json").read_text()
    (folder / "model.json").write_text(text.replace('"tolerance": 0.001', '"tolerance": 1e-09'))
    assert check(folder)[0] == 1
    (folder / "model.mbn").write_bytes(b"no model")
    done = subprocess.run(
        ["node", folder / "check.mjs"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "Error: " in done.stderr


def test_nothing_but_the_folder_is_asked_for(web: Path) -> None:
    for name in PAGE:
        text = asset(name).decode()
        assert "http:" not in text
        assert "https:" not in text
        assert (web / name).read_text() == text
    assert "default-src 'none'" in (web / "index.html").read_text()


def test_what_is_missing_is_named(
    small_run: Path, web: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MOBILENET_WASM", str(tmp_path / "nowhere.wasm"))
    with pytest.raises(MissingWebEngine, match=r"apt install emscripten, then make engine-wasm"):
        export(small_run, to="web", out=tmp_path / "web")
    assert not (tmp_path / "web").exists()
    monkeypatch.undo()
    data = (web / "model.mbn").read_bytes()
    with pytest.raises(UsageError, match="the file is float32, not int8"):
        RUNTIMES["wasm"](data, threads=1, precision="int8", batch=None)
    monkeypatch.setattr(shutil, "which", lambda _: None)
    with pytest.raises(MissingEngine, match="needs node"):
        load(web, runtime="wasm")


# ------------------------------------------------------------------------------------ a browser


class Server(http.server.ThreadingHTTPServer):
    """A static host that remembers what it was asked for."""

    daemon_threads = True

    def __init__(self, folder: Path) -> None:
        self.asked: list[str] = []
        handler = type(
            "Handler", (http.server.SimpleHTTPRequestHandler,), {"log_message": self.remember}
        )
        super().__init__(("127.0.0.1", 0), functools.partial(handler, directory=str(folder)))

    def remember(self, _: str, line: str, *__: object) -> None:
        self.asked.append(line.split()[1])


@pytest.fixture
def served(web: Path) -> Iterator[Server]:
    server = Server(web)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def page(served: Server) -> Iterator[Any]:
    """A page in Debian's Chromium, with a camera that shows a test picture."""
    chromium = shutil.which("chromium")
    playwright = pytest.importorskip("playwright.sync_api")
    if chromium is None:
        pytest.skip("needs chromium")
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(
            executable_path=chromium,
            args=[
                "--no-sandbox",
                "--use-fake-device-for-media-stream",
                "--use-fake-ui-for-media-stream",
            ],
        )
        context = browser.new_context(permissions=["camera"])
        opened = context.new_page()
        opened.goto(f"http://127.0.0.1:{served.server_port}/index.html")
        yield opened
        browser.close()


def labels_of(page: Any) -> list[str]:
    return page.locator("#labels li span:first-child").all_text_contents()


def test_a_file_and_the_camera_in_a_browser(
    page: Any, served: Server, web: Path, tmp_path: Path, small_run: Path
) -> None:
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    hosts: set[str] = set()
    page.on("request", lambda request: hosts.add(request.url.split("/")[2]))
    page.wait_for_selector("#file:enabled")

    rng = np.random.default_rng(5)
    picture = Image.fromarray(rng.integers(0, 256, (5, 6, 3), np.uint8)).resize((90, 70))
    picture.save(tmp_path / "picture.png")
    page.set_input_files("#file", str(tmp_path / "picture.png"))
    page.wait_for_selector("#labels li")
    expected = load(web).predict([tmp_path / "picture.png"], top=5)[0]
    assert labels_of(page) == [best.label for best in expected]
    shares = page.locator("#labels li span:last-child").all_text_contents()
    assert shares == [f"{100 * best.score:.1f} %" for best in expected]

    page.evaluate("document.getElementById('labels').replaceChildren()")
    page.click("#camera")
    page.wait_for_selector("#labels li")
    assert set(labels_of(page)) <= set(load_model(small_run).labels)
    assert page.locator("#video").is_visible()
    page.click("#camera")
    assert page.locator("#video").is_hidden()
    assert errors == []
    assert hosts <= {f"127.0.0.1:{served.server_port}", ""}
    known = {"model.json", "model.mbn", "mobilenet.wasm", *PAGE}
    assert {path.strip("/") for path in served.asked} <= known
