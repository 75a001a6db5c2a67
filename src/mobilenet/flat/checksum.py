"""XXH64 with seed 0, which guards an engine's file (xxhash.com, the algorithm's specification)."""

import struct

import numpy as np

from ..errors import MissingEngine
from ..runtime.engine import require_engine
from .records import HEADER

_P1, _P2, _P3, _P4, _P5 = (
    0x9E3779B185EBCA87,
    0xC2B2AE3D27D4EB4F,
    0x165667B19E3779F9,
    0x85EBCA77C2B2AE63,
    0x27D4EB2F165667C5,
)
_MASK = 2**64 - 1


def checksum(data: bytes) -> int:
    """The XXH64 of `data`, by the native engine where it is installed."""
    try:
        return require_engine().checksum(data)
    except MissingEngine:
        return xxh64(data)


def file_checksum(data: bytes) -> int:
    """What the header of the engine's file `data` states: of the header, its checksum taken as
    zero, exclusive-or of all that is behind it."""
    header = np.frombuffer(data, HEADER, 1).copy()
    header["checksum"] = 0
    return checksum(header.tobytes()) ^ checksum(data[HEADER.itemsize :])


def xxh64(data: bytes) -> int:
    """The XXH64 of `data` in Python: about 15 MB a second."""
    size = len(data)
    stripes = size // 32 * 32
    if stripes:
        a, b, c, d = (_P1 + _P2) & _MASK, _P2, 0, -_P1 & _MASK
        for w, x, y, z in struct.iter_unpack("<4Q", data[:stripes]):
            a = (a + w * _P2) & _MASK
            a = ((a << 31 & _MASK) | a >> 33) * _P1 & _MASK
            b = (b + x * _P2) & _MASK
            b = ((b << 31 & _MASK) | b >> 33) * _P1 & _MASK
            c = (c + y * _P2) & _MASK
            c = ((c << 31 & _MASK) | c >> 33) * _P1 & _MASK
            d = (d + z * _P2) & _MASK
            d = ((d << 31 & _MASK) | d >> 33) * _P1 & _MASK
        hash = _rotate(a, 1) + _rotate(b, 7) + _rotate(c, 12) + _rotate(d, 18) & _MASK
        for lane in (a, b, c, d):
            hash = ((hash ^ _round(0, lane)) * _P1 + _P4) & _MASK
    else:
        hash = _P5
    return _finish((hash + size) & _MASK, data[stripes:])


def _finish(hash: int, tail: bytes) -> int:
    eights = len(tail) // 8 * 8
    for (word,) in struct.iter_unpack("<Q", tail[:eights]):
        hash = (_rotate(hash ^ _round(0, word), 27) * _P1 + _P4) & _MASK
    tail = tail[eights:]
    if len(tail) >= 4:
        hash ^= int.from_bytes(tail[:4], "little") * _P1 & _MASK
        hash = (_rotate(hash, 23) * _P2 + _P3) & _MASK
        tail = tail[4:]
    for byte in tail:
        hash = _rotate(hash ^ byte * _P5 & _MASK, 11) * _P1 & _MASK
    hash = (hash ^ hash >> 33) * _P2 & _MASK
    hash = (hash ^ hash >> 29) * _P3 & _MASK
    return hash ^ hash >> 32


def _round(lane: int, word: int) -> int:
    return _rotate((lane + word * _P2) & _MASK, 31) * _P1 & _MASK


def _rotate(word: int, bits: int) -> int:
    return (word << bits & _MASK) | word >> 64 - bits
