"""Datasets on disk: what is found in them, how they are split, and what is refused."""

import gzip
import hashlib
import json
import os
import re
import unicodedata
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from mobilenet.data import FileSplit, fashion_mnist, open_dataset, scan, without_bad
from mobilenet.data.listing import sort_naturally
from mobilenet.data.splits import choose, hold_out
from mobilenet.errors import DataError, MissingDependency, UsageError

DOCS = Path(__file__).parent.parent / "docs"


def write(path: Path, seed: int = 0, kind: str = "PNG", **options) -> Path:
    """A small picture whose content follows from its name and seed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    key = hashlib.sha256(f"{path.parent.name}/{path.name}/{seed}".encode()).digest()
    pixels = np.frombuffer(key * 6, np.uint8).reshape(8, 8, 3)
    Image.fromarray(pixels).resize((48, 40)).save(path, kind, **options)
    return path


def names(split) -> list[str]:
    return [Path(path).name for path in split.paths]


@pytest.fixture
def flowers(tmp_path: Path) -> Path:
    """20 daisies, 10 roses, 2 tulips, 1 lily."""
    for label, count in (("daisy", 20), ("rose", 10), ("tulip", 2), ("lily", 1)):
        for index in range(count):
            write(tmp_path / "flowers" / label / f"{index}.png")
    return tmp_path / "flowers"


# Folders


def test_class_folders_are_split_by_class(flowers: Path) -> None:
    dataset = open_dataset(flowers)
    assert (dataset.kind, dataset.classes) == ("folder", ("daisy", "lily", "rose", "tulip"))
    counts = {name: split.counts(dataset.classes) for name, split in dataset.splits.items()}
    assert counts == {
        "train": {"daisy": 18, "lily": 1, "rose": 9, "tulip": 1},
        "val": {"daisy": 2, "lily": 0, "rose": 1, "tulip": 1},
    }
    for split in dataset.splits.values():
        assert isinstance(split, FileSplit)
        for index, label in enumerate(split.labels):
            assert Path(split.name(index)).parent.name == dataset.classes[label]
            assert split.read(index).size == (48, 40)
    assert dataset.notes == ("val: 4 of 33 pictures, held out of train",)
    assert list(open_dataset(flowers, val_fraction=0).splits) == ["train"]


@pytest.mark.parametrize(
    ("folders", "expected"),
    [
        (("train", "val", "test"), ["train", "val", "test"]),
        (("Training", "VALIDATION", "Testing"), ["train", "val", "test"]),
        (("train", "valid"), ["train", "val"]),
        (("train", "test"), ["train", "val", "test"]),
        (("val", "test"), ["val", "test"]),
        (("test",), ["test"]),
        (("train", "dev", "notes"), ["train", "val"]),
    ],
)
def test_folders_of_splits(tmp_path: Path, folders: tuple[str, ...], expected: list[str]) -> None:
    for folder in folders:
        for label in ("cat", "dog") if folder != "notes" else ():
            for index in range(4):
                write(tmp_path / folder / label / f"{index}.png")
        (tmp_path / folder).mkdir(exist_ok=True)
    dataset = open_dataset(tmp_path)
    assert list(dataset.splits) == expected
    assert dataset.classes == ("cat", "dog")
    held_out = "val" in expected and len(expected) > len([f for f in folders if f != "notes"])
    assert len(dataset.splits[expected[-1]]) == (8 if expected[-1] != "val" or not held_out else 2)
    ignored = [Path(file.path).name for file in dataset.ignored]
    assert ignored == [folder for folder in folders if folder == "notes"]


def test_train_may_be_a_class(tmp_path: Path) -> None:
    for label in ("train", "bus", "tram"):
        write(tmp_path / label / "1.png")
    assert open_dataset(tmp_path).classes == ("bus", "train", "tram")


def test_the_same_split_twice_is_refused(tmp_path: Path) -> None:
    for split in ("train", "val", "valid"):
        write(tmp_path / split / "cat" / "1.png")
    with pytest.raises(DataError, match="two folders are the val split"):
        open_dataset(tmp_path)


def test_junk_sidecars_and_strangers(tmp_path: Path) -> None:
    write(tmp_path / "cat" / "deep" / "er" / "1.PNG")
    write(tmp_path / "dog" / "no extension")
    write(tmp_path / "loose.png")
    for junk in (".DS_Store", "Thumbs.db", "._1.png", "desktop.ini"):
        (tmp_path / "cat" / junk).write_bytes(b"junk")
    for folder in (".git", "__MACOSX", ".ipynb_checkpoints"):
        write(tmp_path / folder / "1.png")
    (tmp_path / "cat" / "notes.TXT").write_text("a note")
    (tmp_path / "cat" / "phone.heic").write_bytes(b"\0\0\0\x18ftypheic")
    (tmp_path / "bird" / "nothing").mkdir(parents=True)
    dataset = open_dataset(tmp_path, val_fraction=0)
    assert dataset.classes == ("cat", "dog")
    assert dataset.empty_classes == ("bird",)
    assert names(dataset.splits["train"]) == ["phone.heic", "1.PNG", "no extension"]
    assert {(Path(file.path).name, file.reason) for file in dataset.ignored} == {
        ("notes.TXT", "not a picture (.txt)"),
        ("loose.png", "outside the class folders"),
    }


def test_links_are_followed_but_not_round_in_circles(tmp_path: Path) -> None:
    root = tmp_path / "data"
    write(root / "cat" / "1.png")
    write(tmp_path / "elsewhere" / "2.png")
    write(root / "dog" / "3.png")
    (root / "cat" / "more").symlink_to(tmp_path / "elsewhere")
    (root / "cat" / "up").symlink_to(root)
    (root / "cat" / "here").symlink_to(root / "cat")
    (root / "dog" / "self.png").symlink_to(root / "dog" / "self.png")
    dataset = open_dataset(root, val_fraction=0)
    assert dataset.splits["train"].counts(dataset.classes) == {"cat": 2, "dog": 2}
    (bad,) = scan(dataset).unreadable
    assert Path(bad.path).name == "self.png"
    assert "symbolic link" in bad.reason


def test_composed_and_decomposed_names_are_one_class(tmp_path: Path) -> None:
    composed, apart = (unicodedata.normalize(form, "café") for form in ("NFC", "NFD"))
    write(tmp_path / "train" / composed / "1 é.png")
    write(tmp_path / "train" / "thé 茶" / "2.png")
    write(tmp_path / "val" / apart / "3.png")
    write(tmp_path / "val" / "thé 茶" / "4.png")
    dataset = open_dataset(tmp_path)
    assert dataset.classes == (composed, "thé 茶")
    assert [split.labels.tolist() for split in dataset.splits.values()] == [[0, 1], [0, 1]]
    assert dataset.splits["val"].read(0).mode == "RGB"


def test_names_that_are_not_unicode(tmp_path: Path) -> None:
    path = write(tmp_path / "cat" / "1.png")
    write(tmp_path / "dog" / "1.png")
    path.rename(path.with_name(os.fsdecode(b"\xff\xfe.png")))
    dataset = open_dataset(tmp_path, val_fraction=0)
    assert dataset.splits["train"].read(0).size == (48, 40)
    assert open_dataset(tmp_path).splits.keys() == {"train"}


def test_natural_order() -> None:
    mixed = ["cat10", "cat2", "Bird", "apple", "2", "10", "1a", "cat", "Cat2"]
    expected = ["1a", "2", "10", "apple", "Bird", "cat", "Cat2", "cat2", "cat10"]
    assert sort_naturally(mixed) == sort_naturally(reversed(mixed)) == expected


# What is no dataset


def test_what_cannot_be_opened_says_why(tmp_path: Path) -> None:
    def refusal(source: Path | str) -> str:
        with pytest.raises(DataError) as caught:
            open_dataset(source)
        assert str(source) in str(caught.value)
        return str(caught.value)

    def folder(name: str, *files: str) -> Path:
        for file in files:
            path = tmp_path / name / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("{}")
        (tmp_path / name).mkdir(exist_ok=True)
        return tmp_path / name

    assert "no such file or folder" in refusal(tmp_path / "missing")
    assert "'fashion-mnist'" in refusal("mnist")
    assert "no pictures in its folders []" in refusal(folder("empty"))
    assert "['cat', 'dog']" in refusal(folder("bare", "cat/.hidden", "dog/a.txt"))
    assert "pictures (2), but none in class folders" in refusal(folder("flat", "1.jpg", "2.PNG"))
    assert (
        "pictures (1), but none" in refusal(folder("half", "train/1.jpg", "test/cat/2.jpg"))[:200]
    )
    assert "COCO" in refusal(folder("coco", "annotations/instances.json", "train2017/1.jpg"))
    assert "Pascal VOC" in refusal(folder("voc", "Annotations/1.xml", "JPEGImages/1.jpg"))
    assert "YOLO" in refusal(folder("yolo", "images/train/1.jpg", "labels/train/1.txt"))
    assert "WebDataset" in refusal(folder("shards", "train-0000.tar", "train-0001.tar"))
    files = folder("files", "a.json", "b.tar", "c.zip", "d.jpg", "e.xyz", "f.csv")
    assert "COCO JSON" in refusal(files / "a.json")
    assert "WebDataset" in refusal(files / "b.tar")
    assert "unpack" in refusal(files / "c.zip")
    assert "a single picture" in refusal(files / "d.jpg")
    assert "not a kind of dataset" in refusal(files / "e.xyz")
    assert "no such file or folder" in refusal("nul\0")
    for option in ({"val_fraction": 1.0}, {"val_fraction": -0.1}, {"limit": 0}):
        with pytest.raises(UsageError, match=next(iter(option))):
            open_dataset(files, **option)


def test_a_folder_that_may_not_be_read(flowers: Path, monkeypatch) -> None:
    listed = os.scandir

    def scandir(folder: Path):
        if Path(folder).name == "rose":
            raise PermissionError(13, "Permission denied")
        return listed(folder)

    monkeypatch.setattr(os, "scandir", scandir)
    with pytest.raises(DataError, match="rose: cannot be listed: Permission denied"):
        open_dataset(flowers)


# Manifests


def manifest(folder: Path, text: str, name: str = "data.csv", encoding: str = "utf-8") -> Path:
    for index in range(4):
        write(folder / "pictures" / f"{index}.png")
    path = folder / name
    path.write_bytes(text.encode(encoding))
    return path


ROWS = [("pictures/0.png", "b"), ("pictures/1.png", "a"), ("pictures/2.png", "b")]


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("header", [("path", "label"), ("Image ", "CLASS"), ("file", "class")])
def test_manifest_dialects(tmp_path: Path, delimiter, encoding, header) -> None:
    rows = [delimiter.join(row) for row in (header, *ROWS)]
    path = manifest(tmp_path, "\r\n".join(rows) + "\r\n\r\n", encoding=encoding)
    dataset = open_dataset(path, val_fraction=0)
    assert (dataset.kind, dataset.classes) == ("csv", ("a", "b"))
    assert names(dataset.splits["train"]) == ["0.png", "1.png", "2.png"]
    assert dataset.splits["train"].labels.tolist() == [1, 0, 1]
    assert dataset.splits["train"].read(2).size == (48, 40)


def test_manifest_splits_quotes_and_spare_columns(tmp_path: Path) -> None:
    write(tmp_path / "pictures" / "with, comma é.png")
    accent = unicodedata.normalize("NFD", "pictures/with, comma é.png")
    text = (
        "id,label,split,path\n"
        "1, cat ,train,pictures/0.png\n"
        f'2,dog,VALID,"{accent}"\n'
        f"3,dog,testing,{tmp_path / 'pictures' / '1.png'}\n"
        "4,cat,train,pictures/gone.png\n"
    )
    dataset = open_dataset(manifest(tmp_path, text))
    assert dataset.classes == ("cat", "dog")
    assert {name: names(split) for name, split in dataset.splits.items()} == {
        "train": ["0.png", "gone.png"],
        "val": ["with, comma é.png"],
        "test": ["1.png"],
    }
    (bad,) = scan(dataset).unreadable
    assert (Path(bad.path).name, bad.reason) == ("gone.png", "no such file")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "empty; expected a header"),
        ("path,label\n", "no rows under the header"),
        ("pictures/0.png,a\n", "row 1: expected a header with the columns path"),
        ("path,colour\nx,y\n", r"found \['path', 'colour'\]"),
        ("path,image,label\nx,y,z\n", "row 1: .*could each be the path column"),
        ("path,label\npictures/0.png,a\npictures/1.png\n", "row 3: 1 cells, the header has 2"),
        ("path,label\npictures/0.png,\n", "row 2: the label is empty"),
        ("path,label\n,a\n", "row 2: the path is empty"),
        ("path,label\nhttps://x.org/1.png,a\n", "row 2: .*an address"),
        ("path,label,split\npictures/0.png,a,trian\n", "row 2: split 'trian'"),
        ("path,label,split\npictures/0.png,a,\n", "row 2: split ''"),
        ("path,label\n\ngone.png,a\n", "none of its 1 files exists; the first is .*gone.png"),
        ('path,label\n"pictures/0.png,a\n', "row 2: unexpected end of data"),
    ],
)
def test_manifest_errors_name_the_row(tmp_path: Path, text: str, message: str) -> None:
    path = manifest(tmp_path, text)
    with pytest.raises(DataError, match=f"{re.escape(str(path))}.*{message}"):
        open_dataset(path)


def test_manifest_that_is_not_utf8(tmp_path: Path) -> None:
    path = manifest(
        tmp_path, "path,label\npictures/0.png,a\npictures/1.png,é\n", encoding="latin-1"
    )
    with pytest.raises(DataError, match="row 3: not UTF-8"):
        open_dataset(path)


def test_parquet_is_read_as_csv_is(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    paths, labels = zip(*ROWS, strict=True)
    path = manifest(tmp_path, "", "data.parquet")
    pq.write_table(pa.table({"image": paths, "class": labels, "n": [1, 2, 3]}), path)
    dataset = open_dataset(path, val_fraction=0)
    assert (dataset.kind, dataset.classes) == ("parquet", ("a", "b"))
    assert names(dataset.splits["train"]) == ["0.png", "1.png", "2.png"]
    pq.write_table(pa.table({"path": paths, "label": [10, 9, 10], "split": ["train"] * 3}), path)
    assert open_dataset(path).classes == ("9", "10")
    for columns, message in (
        ({"path": [*paths[:2], None], "label": labels}, "row 3: the path is empty"),
        ({"image": [{"bytes": b"x"}] * 3, "label": labels}, "row 1: image holds dict"),
        ({"path": paths}, "found"),
    ):
        pq.write_table(pa.table(columns), path)
        with pytest.raises(DataError, match=message):
            open_dataset(path)
    path.write_bytes(b"PAR1 not really")
    with pytest.raises(DataError, match="not a Parquet file"):
        open_dataset(path)


def test_parquet_without_pyarrow(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    with pytest.raises(MissingDependency, match=r"mobilenet\[parquet\]"):
        open_dataset(manifest(tmp_path, "", "data.parquet"))


# Splits

LABELS = st.lists(st.integers(0, 5), min_size=1, max_size=120)


@settings(max_examples=60, deadline=None)
@given(labels=LABELS, fraction=st.floats(0.01, 0.9), seed=st.integers(0, 99))
def test_hold_out_is_exact_in_every_class(labels, fraction, seed) -> None:
    keys = [f"{label}/{index}" for index, label in enumerate(labels)]
    kept, held = hold_out(np.array(labels), keys, fraction=fraction, seed=seed)
    assert sorted([*kept, *held]) == list(range(len(labels)))
    total, taken = Counter(labels), Counter(labels[index] for index in held)
    for label, count in total.items():
        assert taken[label] == min(max(round(fraction * count), 1), count - 1)


@settings(max_examples=40, deadline=None)
@given(labels=LABELS, more=st.lists(st.integers(0, 5), max_size=20), seed=st.integers(0, 9))
def test_new_pictures_do_not_reshuffle_the_others(labels, more, seed) -> None:
    def held(labels: list[int]) -> set[str]:
        keys = [f"{label}/{index}" for index, label in enumerate(labels)]
        return {
            keys[index] for index in hold_out(np.array(labels), keys, fraction=0.2, seed=seed)[1]
        }

    # each new picture can push out one that was held, or make room for one more
    assert len(held(labels) ^ held(labels + more)) <= 2 * len(more)


def test_splits_depend_on_seed_and_name_but_not_on_place_or_order(flowers: Path) -> None:
    first = {Path(name).relative_to(flowers) for name in open_dataset(flowers).splits["val"].paths}
    moved = flowers.rename(flowers.with_name("moved"))
    again = {Path(name).relative_to(moved) for name in open_dataset(moved).splits["val"].paths}
    other = open_dataset(moved, seed=1).splits["val"].paths
    assert first == again
    assert {Path(name).relative_to(moved) for name in other} != first
    labels, keys = np.array([0] * 50), [str(index) for index in range(50)]
    held = hold_out(labels, keys, fraction=0.2, seed=0)[1]
    backwards = hold_out(labels, keys[::-1], fraction=0.2, seed=0)[1]
    assert sorted(49 - backwards) == sorted(held)
    assert held.tolist() == [3, 15, 16, 18, 20, 22, 33, 35, 37, 38]


@settings(max_examples=60, deadline=None)
@given(labels=LABELS, limit=st.integers(1, 130), seed=st.integers(0, 9))
def test_limit_is_exact_and_in_proportion(labels, limit, seed) -> None:
    keys = [str(index) for index in range(len(labels))]
    rows = choose(np.array(labels), keys, limit=limit, seed=seed)
    assert len(rows) == len(set(rows.tolist())) == min(limit, len(labels))
    assert sorted(rows) == rows.tolist()
    taken, share = Counter(labels[row] for row in rows), min(limit / len(labels), 1)
    for label, count in Counter(labels).items():
        assert abs(taken[label] - count * share) < 1


def test_limit_applies_to_every_split(flowers: Path) -> None:
    dataset = open_dataset(flowers, limit=3)
    assert {name: len(split) for name, split in dataset.splits.items()} == {"train": 3, "val": 3}
    assert dataset.notes[1:] == (
        "train: limited to 3 of 29 pictures",
        "val: limited to 3 of 4 pictures",
    )
    whole = open_dataset(flowers)
    for name, split in dataset.splits.items():
        assert set(split.paths) < set(whole.splits[name].paths)


# Fashion-MNIST


@pytest.fixture
def published(tmp_path: Path, monkeypatch) -> Path:
    """A folder with four small IDX files, taken for the published ones."""
    rng = np.random.default_rng(0)
    folder = tmp_path / "published"
    folder.mkdir()
    files = {}
    for (split, what), file in fashion_mnist._FILES.items():
        count = 60 if split == "train" else 20
        shape = (count, 28, 28) if what == "images" else (count,)
        values = rng.integers(0, 256, shape) if what == "images" else np.arange(count) % 10
        content = bytes(file.header) + values.astype(np.uint8).tobytes()
        (folder / file.name).write_bytes(gzip.compress(content))
        digest = hashlib.sha256(content).hexdigest()
        files[split, what] = type(file)(
            name=file.name, md5=file.md5, sha256=digest, header=file.header
        )
    monkeypatch.setattr(fashion_mnist, "_FILES", files)
    monkeypatch.setattr(fashion_mnist, "_INSTALLED", tmp_path / "not installed")
    monkeypatch.setenv("MOBILENET_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("MOBILENET_DATA", raising=False)
    return folder


def test_fashion_mnist_is_found_where_it_is_said_to_be(published: Path, monkeypatch) -> None:
    monkeypatch.setenv("MOBILENET_DATA", str(published.parent))
    published.rename(published.with_name("fashion-mnist"))
    for source in ("fashion-mnist", published.with_name("fashion-mnist")):
        dataset = open_dataset(source)
        assert dataset.kind == "fashion-mnist"
        assert dataset.classes[7] == "Sneaker"
        assert {name: len(part) for name, part in dataset.splits.items()} == {
            "train": 50,
            "val": 10,
            "test": 20,
        }
        assert set(dataset.splits["val"].counts(dataset.classes).values()) == {1}
        split = dataset.splits["val"]
        row = int(split.name(3).removeprefix("fashion-mnist/train[").removesuffix("]"))
        content = gzip.decompress(
            (published.with_name("fashion-mnist") / "train-images-idx3-ubyte.gz").read_bytes()
        )
        pixels = np.frombuffer(content, np.uint8, 784, 16 + 784 * row).reshape(28, 28)
        np.testing.assert_array_equal(np.asarray(split.read(3)), pixels[..., None].repeat(3, 2))


def test_fashion_mnist_is_downloaded_once(published: Path, monkeypatch) -> None:
    fetched: list[str] = []

    def fetch(url: str, target: Path, *, md5: str, desc: str) -> Path:
        fetched.append(url)
        assert len(md5) == 32
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes((published / target.name).read_bytes())
        return target

    monkeypatch.setattr("mobilenet.download.fetch", fetch)
    for _ in range(2):
        assert len(open_dataset("fashion-mnist", limit=7).splits["train"]) == 7
    assert len(fetched) == 4
    assert all(url.startswith("https://") for url in fetched)


def test_fashion_mnist_damaged_or_another(published: Path) -> None:
    path = published / "train-labels-idx1-ubyte.gz"
    good = path.read_bytes()
    for content, message in (
        (good[:-9], "damaged"),
        (gzip.compress(b"MNIST instead"), "sha256 differs"),
    ):
        path.write_bytes(content)
        with pytest.raises(DataError, match=f"{re.escape(str(path))}: .*{message}"):
            open_dataset(published)


@pytest.mark.skipif(fashion_mnist.find_installed() is None, reason="Fashion-MNIST is not here")
def test_fashion_mnist_itself() -> None:
    dataset = open_dataset("fashion-mnist")
    counts = {name: split.counts(dataset.classes) for name, split in dataset.splits.items()}
    assert {name: set(count.values()) for name, count in counts.items()} == {
        "train": {5400},
        "val": {600},
        "test": {1000},
    }
    assert scan(dataset).unreadable == ()


# Looking at every file

BAD = {
    "empty.jpg": "the file is empty (0 bytes)",
    "text.jpg": "not an image but a text",
    "truncated.jpg": "truncated or damaged JPEG",
    "truncated.png": "truncated or damaged PNG",
    "bomb.png": "limit of 89478485 pixels",
    "phone.heic": "HEIC",
    "float.tiff": "32 bits",
    "broken link.png": "broken link",
}


@pytest.fixture
def mixed(tmp_path: Path) -> Path:
    """Two classes with good pictures of odd kinds, and one bad file of each kind."""
    import struct
    import zlib

    root = tmp_path / "mixed"
    cat, dog = root / "cat", root / "dog"
    for index in range(6):
        write(dog / f"{index}.png")
    good = {
        "GREY.JPG": Image.new("L", (64, 40), 9),
        "cmyk.jpeg": Image.new("CMYK", (64, 40)),
        "alpha.png": Image.new("RGBA", (40, 40), (1, 2, 3, 4)),
        "palette.gif": Image.new("P", (40, 40)),
        "sixteen.png": Image.fromarray(np.full((40, 40), 4000, np.uint16)),
        "tiny.bmp": Image.new("RGB", (5, 7)),
        "long.webp": Image.new("RGB", (400, 40)),
    }
    cat.mkdir()
    for name, image in good.items():
        image.save(cat / name)
    turned = Image.Exif()
    turned[0x0112] = 6
    Image.new("RGB", (50, 40), "red").save(cat / "turned", "JPEG", exif=turned)
    frames = [Image.new("RGB", (40, 40), colour) for colour in ("red", "blue")]
    frames[0].save(cat / "moving.gif", save_all=True, append_images=frames[1:])
    (cat / "empty.jpg").touch()
    (cat / "text.jpg").write_text("not a picture at all")
    for kind in ("jpg", "png"):
        whole = write(tmp_path / f"whole.{kind}", kind={"jpg": "JPEG", "png": "PNG"}[kind])
        data = whole.read_bytes()
        (cat / f"truncated.{kind}").write_bytes(data[: len(data) * 2 // 3])
    header = b"IHDR" + struct.pack(">IIBBBBB", 50_000, 50_000, 8, 2, 0, 0, 0)
    checksum = struct.pack(">I", zlib.crc32(header))
    bomb = b"\x89PNG\r\n\x1a\n\0\0\0\x0d" + header + checksum + b"\0\0\0\4IDAT" + bytes(8)
    (cat / "bomb.png").write_bytes(bomb)
    (cat / "phone.heic").write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0")
    Image.new("F", (4, 4)).save(cat / "float.tiff")
    (cat / "broken link.png").symlink_to(cat / "gone.png")
    return root


@pytest.mark.parametrize("workers", [0, 3])
def test_scan_lists_every_bad_file_with_its_reason(mixed: Path, workers: int) -> None:
    dataset = open_dataset(mixed, val_fraction=0)
    report = scan(dataset, workers=workers)
    found = {Path(bad.path).name: bad.reason for bad in report.unreadable}
    assert found.keys() == BAD.keys()
    for name, reason in BAD.items():
        assert reason in found[name]
        assert name not in found[name]
    assert report.images == 6 + 9 + 8
    assert report.formats == {"PNG": 8, "JPEG": 3, "GIF": 2, "BMP": 1, "WEBP": 1}
    assert report.modes == {"RGB": 9, "P": 2, "L": 1, "CMYK": 1, "RGBA": 1, "I;16": 1}
    assert (report.rotated, report.animated) == (1, 1)
    assert report.sizes is not None
    assert (report.sizes.small, report.sizes.long) == (1, 1)
    assert (report.sizes.min_width, report.sizes.max_width) == (5, 400)
    with pytest.raises(DataError, match="8 of 23 pictures cannot be read") as caught:
        report.refuse_unreadable()
    for name in BAD:
        assert name in str(caught.value)


def test_without_bad_leaves_the_rest_alone(mixed: Path) -> None:
    dataset = open_dataset(mixed)
    clean = without_bad(dataset, scan(dataset))
    assert clean.classes == dataset.classes
    kept = {name for split in clean.splits.values() for name in split.paths}
    every = {name for split in dataset.splits.values() for name in split.paths}
    assert {Path(name).name for name in every - kept} == BAD.keys()
    report = scan(clean)
    assert report.unreadable == ()
    report.refuse_unreadable()
    for name, split in clean.splits.items():
        for index, label in enumerate(split.labels):
            assert Path(split.name(index)).parent.name == clean.classes[label], name


def test_a_class_without_a_readable_picture_is_left_out(mixed: Path) -> None:
    for index in range(3):
        write(mixed / "bird" / f"{index}.png").write_bytes(b"")
    dataset = open_dataset(mixed)
    assert dataset.classes == ("bird", "cat", "dog")
    clean = without_bad(dataset, scan(dataset))
    assert (clean.classes, clean.empty_classes) == (("cat", "dog"), ("bird",))
    assert "class bird: left out, no picture to read" in clean.notes
    for split in clean.splits.values():
        for index, label in enumerate(split.labels):
            assert Path(split.name(index)).parent.name == clean.classes[label]
    for path in (*(mixed / "dog").iterdir(), *(mixed / "cat").iterdir()):
        path.unlink()
        path.write_bytes(b"")
    dataset = open_dataset(mixed)
    with pytest.raises(DataError, match="none of the pictures of split train can be read"):
        without_bad(dataset, scan(dataset))


def test_scan_finds_copies_and_gaps(tmp_path: Path) -> None:
    for split, label, count in (("train", "cat", 30), ("train", "dog", 2), ("test", "cat", 3)):
        for index in range(count):
            write(tmp_path / split / label / f"{index}.png", seed=len(split))
    train, test = tmp_path / "train", tmp_path / "test"
    copy = (train / "cat" / "0.png").read_bytes()
    (train / "cat" / "again.png").write_bytes(copy)
    (test / "cat" / "leak.png").write_bytes(copy)
    (train / "cat" / "both.png").write_bytes((train / "dog" / "0.png").read_bytes())
    report = scan(open_dataset(tmp_path, val_fraction=0))
    found = {
        (duplicate.conflict, frozenset(Path(copy.path).name for copy in duplicate.copies))
        for duplicate in report.duplicates
    }
    assert found == {
        ("splits", frozenset({"0.png", "again.png", "leak.png"})),
        ("labels", frozenset({"both.png", "0.png"})),
    }
    assert report.repeated == 1
    assert report.missing == {"test": ("dog",)}
    assert report.imbalance == 16
    json.dumps([vars(bad) for bad in report.unreadable])


# The page


def test_the_page_runs_as_it_is_written(tmp_path: Path, monkeypatch, capsys) -> None:
    for label in ("daisy", "rose"):
        for index in range(6):
            write(tmp_path / "flowers" / label / f"{index}.jpg", kind="JPEG")
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", (DOCS / "data.md").read_text(), re.S)
    assert len(blocks) == 4
    scope: dict[str, object] = {}
    for block in blocks:
        exec(compile(block, "data.md", "exec"), scope)
    assert "folder ('daisy', 'rose')" in capsys.readouterr().out
