"""Decompression that never yields more than requested, whatever the compressed bytes expand to."""

from __future__ import annotations

import gzip
import io
import zlib
from typing import IO

from mri_transfer.datasets.volumes.formats.stored import SLACK_BYTES, BadVolume

GZIP = b"\x1f\x8b"
_PIECE_BYTES = 1 << 20


def start_of(blob: bytes, count: int) -> bytes:
    """The first `count` bytes of a file's content, decompressed if it is gzipped; fewer if there are fewer."""
    if blob[:2] != GZIP:
        return blob[:count]
    try:
        return zlib.decompressobj(zlib.MAX_WBITS | 16).decompress(blob[: 1 << 16], count)
    except zlib.error:
        return b""


def voxel_bytes(blob: bytes, offset: int, count: int) -> tuple[memoryview, tuple[str, ...]]:
    """`count` bytes from `offset` of a plain or gzipped file, whose checksum is verified; and notes.

    Raises:
        EOFError: there are fewer.
        BadVolume: far more follow, as in a decompression bomb.
        zlib.error: the compression is damaged.
    """
    if blob[:2] == GZIP:
        return _gunzipped(blob, offset, count)
    if offset < 0 or len(blob) < offset + count:
        raise EOFError
    return memoryview(blob)[offset : offset + count], ()


def _gunzipped(blob: bytes, offset: int, count: int) -> tuple[memoryview, tuple[str, ...]]:
    """One or several gzip members; zlib itself checks their checksums.

    Trailing data that is not a member, appended by some servers and tools, is noted and ignored.
    """
    if offset < 0:
        raise EOFError
    end, rest = offset + count, memoryview(blob)
    pieces: list[bytes] = []
    position = behind = 0
    while True:
        member = zlib.decompressobj(zlib.MAX_WBITS | 16)
        packed: bytes | memoryview = rest
        while not member.eof:
            piece = member.decompress(packed, max(end - position, 0) or _PIECE_BYTES)
            if not piece and not member.eof and not member.unconsumed_tail:
                raise EOFError
            packed = member.unconsumed_tail
            if position < end:
                pieces.append(piece)
                position += len(piece)
            else:
                behind += len(piece)
            if behind > SLACK_BYTES:
                raise BadVolume("decompresses to far more than its header says")
        rest = rest[len(rest) - len(member.unused_data) :]
        if bytes(rest[:3]) != GZIP + b"\x08":
            break
    if position < end:
        raise EOFError
    content = memoryview(pieces[0] if len(pieces) == 1 else b"".join(pieces))[offset:end]
    stray = len(bytes(rest).strip(b"\0"))
    return content, (f"{stray} bytes behind the compressed data ignored",) if stray else ()


def stream_bytes(stream: IO[bytes] | gzip.GzipFile, offset: int, count: int) -> memoryview:
    """The same from a decompressing stream, read to its end, where the checksum is."""
    if offset < 0:
        raise EOFError
    position = 0
    while position < offset:
        piece = stream.read(min(offset - position, _PIECE_BYTES))
        if not piece:
            raise EOFError
        position += len(piece)
    voxels = memoryview(bytearray(count))
    filled = 0
    while filled < count:
        more = stream.readinto(voxels[filled:])  # type: ignore[union-attr]
        if not more:
            raise EOFError
        filled += more
    behind = 0
    while piece := stream.read(_PIECE_BYTES):
        behind += len(piece)
        if behind > SLACK_BYTES:
            raise BadVolume("decompresses to far more than its header says")
    return voxels


def whole_bytes(blob: bytes, max_bytes: int) -> bytes:
    """All of a plain or gzipped file.

    Raises:
        BadVolume: it would expand beyond `max_bytes` and a margin.
        EOFError, zlib.error, gzip.BadGzipFile: the compression is cut off or damaged.
    """
    if blob[:2] != GZIP:
        return blob
    pieces, total = [], 0
    with gzip.GzipFile(fileobj=io.BytesIO(blob)) as stream:
        while piece := stream.read(_PIECE_BYTES):
            total += len(piece)
            if total > max_bytes + SLACK_BYTES:
                raise BadVolume("decompresses to more than --max-mb allows")
            pieces.append(piece)
    return b"".join(pieces)


def inflate(packed: bytes, count: int, window_bits: int = zlib.MAX_WBITS) -> bytes:
    """A zlib (or, by `window_bits`, raw deflate) stream of at most `count` bytes.

    Raises:
        BadVolume: it would expand to more.
        EOFError, zlib.error: it is cut off or damaged.
    """
    unpacker = zlib.decompressobj(window_bits)
    content = unpacker.decompress(packed, count + 1)
    if len(content) > count:
        raise BadVolume("decompresses to more than its header says")
    if not unpacker.eof:
        raise EOFError
    return content
