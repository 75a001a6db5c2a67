"""A model of several files as one: what is hashed, handed to a runtime and taken apart by it.

In memory it is a ZIP that does not compress; on disk the files lie beside each other.
"""

import hashlib
import io
import zipfile
from collections.abc import Mapping

_DATE = (1980, 1, 1, 0, 0, 0)  # the same files give the same bytes


def pack(files: Mapping[str, bytes]) -> bytes:
    """The files, by their paths below the folder, in this order."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, data in files.items():
            archive.writestr(zipfile.ZipInfo(name, _DATE), data)
    return buffer.getvalue()


def unpack(data: bytes) -> dict[str, bytes]:
    """The inverse of `pack`. Raises zipfile.BadZipFile."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def list_sha256(sha256s: Mapping[str, str]) -> str:
    """The hash of several files: of what `sha256sum FILE...` prints of them."""
    lines = "".join(f"{sha256}  {name}\n" for name, sha256 in sha256s.items())
    return hashlib.sha256(lines.encode()).hexdigest()
