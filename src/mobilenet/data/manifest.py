"""A manifest: a table, CSV or Parquet, with a row for each picture.

Columns (in any case and order; others are left alone): `path` (or `image`, `file`, `filename`),
`label` (or `class`), and optionally `split` (train, val, test or their common synonyms). Paths are
taken from the manifest's folder. CSV: comma, semicolon, tab or bar; UTF-8 or UTF-16 with its mark.
"""

import codecs
import csv
import io
import unicodedata
from collections.abc import Iterable
from pathlib import Path

from ..errors import DataError, MissingDependency
from .listing import SPLIT_NAMES, Item, Listing, class_name

_PATH = ("path", "image", "file", "filename")
_LABEL = ("label", "class")
_SPLIT = ("split",)
_DELIMITERS = ",;\t|"

Row = tuple[int, str, str, str | None]  # where in the file, path, label, split


def list_manifest(path: Path) -> Listing:
    """List a manifest. Raises DataError naming the file and the row that cannot be used."""
    parquet = path.suffix.lower() in (".parquet", ".pq")
    rows = _parquet_rows(path) if parquet else _csv_rows(path)
    splits: dict[str, list[Item]] = {}
    for row, picture, label, split in rows:
        where = f"{path}, row {row}"
        if not picture or not label:
            raise DataError(f"{where}: the {'label' if picture else 'path'} is empty")
        if "://" in picture:
            raise DataError(f"{where}: {picture!r} is an address; download the pictures first")
        part = "all" if split is None else SPLIT_NAMES.get(split.lower())
        if part is None:
            raise DataError(f"{where}: split {split!r}: expected train, val or test")
        item = Item(_locate(path.parent, picture), class_name(label), class_name(picture))
        splits.setdefault(part, []).append(item)
    items = [item for part in splits.values() for item in part]
    if not items:
        raise DataError(f"{path}: no rows under the header")
    if not any(Path(item.path).exists() for item in items):
        raise DataError(
            f"{path}: none of its {len(items)} files exists; the first is {items[0].path} "
            "(paths are taken from the manifest's folder)"
        )
    return Listing(kind="parquet" if parquet else "csv", splits=splits)


def _locate(folder: Path, name: str) -> str:
    """The path of a picture; with its accents composed or apart, as the disk has it."""
    path = folder / name
    if not path.exists():
        for form in ("NFC", "NFD"):
            other = folder / unicodedata.normalize(form, name)
            if other.exists():
                return str(other)
    return str(path)


def _columns(path: Path, names: Iterable[str]) -> tuple[int, int, int | None]:
    """Positions of the path, label and split columns in a header."""
    names = [name.strip().lower() for name in names]
    found: list[int | None] = []
    for wanted in (_PATH, _LABEL, _SPLIT):
        places = [place for place, name in enumerate(names) if name in wanted]
        if len(places) > 1:
            raise DataError(
                f"{path}, row 1: {[names[place] for place in places]} could each be the "
                f"{wanted[0]} column; keep one"
            )
        found.append(places[0] if places else None)
    picture, label, split = found
    if picture is None or label is None:
        raise DataError(
            f"{path}, row 1: expected a header with the columns path (or {', '.join(_PATH[1:])}) "
            f"and label (or class), found {names}"
        )
    return picture, label, split


def _csv_rows(path: Path) -> Iterable[Row]:
    text = _read_text(path)
    header = next((line for line in text.splitlines() if line.strip()), "")
    delimiter = max(_DELIMITERS, key=header.count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    columns: tuple[int, int, int | None] | None = None
    width = 0
    try:
        for cells in reader:
            cells = [cell.strip() for cell in cells]
            if not any(cells):
                continue
            if columns is None:
                columns, width = _columns(path, cells), len(cells)
                continue
            if len(cells) != width:
                raise DataError(
                    f"{path}, row {reader.line_num}: {len(cells)} cells, the header has {width}; "
                    f"quote names that hold a {delimiter!r}"
                )
            picture, label, split = columns
            part = None if split is None else cells[split]
            yield reader.line_num, cells[picture], cells[label], part
    except csv.Error as error:
        raise DataError(f"{path}, row {reader.line_num}: {error}") from error
    if columns is None:
        raise DataError(f"{path}: empty; expected a header with the columns path and label")


def _read_text(path: Path) -> str:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from error
    wide = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        return data.decode("utf-16" if wide else "utf-8-sig")
    except UnicodeDecodeError as error:
        row = data[: error.start].count(b"\n") + 1
        raise DataError(f"{path}, row {row}: not UTF-8; save the table as UTF-8") from error


def _parquet_rows(path: Path) -> Iterable[Row]:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError:
        raise MissingDependency("pyarrow", "parquet", f"the manifest {path}") from None
    try:
        schema = pq.read_schema(path)
        wanted = _columns(path, schema.names)
        names = [None if place is None else schema.names[place] for place in wanted]
        table = pq.read_table(path, columns=[name for name in names if name is not None])
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{path}: not a Parquet file that can be read: {error}") from error
    cells = [None if name is None else table.column(name).to_pylist() for name in names]
    pictures, labels, splits = cells
    assert pictures is not None
    assert labels is not None
    for at, (picture, label) in enumerate(zip(pictures, labels, strict=True)):
        if picture is not None and not isinstance(picture, str):
            raise DataError(
                f"{path}, row {at + 1}: {names[0]} holds {type(picture).__name__}, expected the "
                "path of a file; write embedded pictures to files first"
            )
        split = None if splits is None else _text(splits[at])
        yield at + 1, _text(picture), _text(label), split


def _text(cell: object) -> str:
    return "" if cell is None else str(cell).strip()
