"""Edits that damage a file: each is five whole numbers, so that any tool can draw and shrink them.

An edit knows the formats that checksums or lengths protect: it goes inside an archive, a chunk of a
PNG, a field of a protobuf message, and what is around it is made to fit again.
"""

import json
import random
import re
import struct
import zipfile
import zlib
from collections.abc import Callable, Sequence
from io import BytesIO

from utils.files import DAMAGE

Edit = tuple[int, int, int, int, int]  # where, what, at, length, value
Opened = tuple[list[bytes], Callable[[list[bytes]], bytes]]

LARGEST = 1 << 22  # bytes of an edited file
INTEGERS = (
    *(0, 1, -1, 2, 3, 4, 7, 8, 16, 100, 127, 128, 255, 256, 1000, 32767, 32768, 65535, 65536),
    *(10**6, 1 << 24, 1 << 28, 10**9, (1 << 31) - 1, 1 << 31, (1 << 32) - 1, 1 << 32, 1 << 40),
    *((1 << 63) - 1, 1 << 63, (1 << 64) - 1, 0x7FC00000, 0x7F800000, 0x7149F2CA),
)
TOKENS = (
    *(b"", b"\0", b"\xff", b"\xef\xbb\xbf", b"\xff\xfe", b'"', b"'", b'""', b"\\", b"\n", b"\r"),
    *(b"\r\n", b",", b";", b"\t", b" ", b"=", b"#", b":", b"/", b"|", b"[", b"]", b"{", b"}", b"("),
    *(b"nan", b"NaN", b"inf", b"-Infinity", b"1e400", b"1e30", b"1e-45", b"-1", b"0", b"1", b"-0"),
    *(b"0.5", b"2", b"255", b"4294967296", b"2147483648", b"9223372036854775808", b"1_0", b"0x10"),
    *(b"-9223372036854775809", b"99999999999999999999", b"9" * 400, b"9" * 5000, b"1" + b"0" * 60),
    *("²".encode(), "١".encode(), "é".encode(), b"\xed\xa0\x80", b"\xe2\x80\xae", b"\xf0\x9f"),
    *(b"null", b"true", b"false", b"{}", b"[]", b'""', b'"a"', b"None", b"()", b"a.b", b"*"),
    *(b"[" * 3000, b"[" * 100_000, b'{"a":' * 20_000, b"(" * 300, b"-" * 1000, b"not " * 4000),
    *(b"a" * 70_000, b"," * 5000, b"\n" * 5000, b"../../../etc/passwd", b"/dev/zero", b"..", b"."),
    *(b"\xce\xd7#\n"[::-1], b"\n#\xd7\xce", b"\x93NUMPY\x01\0", b"PK\x03\x04", b"|O", b"O"),
    *(b"cos\nsystem\n(S'id'\ntR.", b"c__builtin__\neval\n", b"\x8a\xff", b"j\xff\xff\xff\x7f"),
)  # fmt: skip
_NUMBER = re.compile(rb"-?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?")
_FIELD = re.compile(rb"[^,;\t\n\r ]+")


def edited(content: bytes, edits: Sequence[Edit], others: Sequence[bytes] = ()) -> bytes:
    """Return a file after some edits; `others` are files of its kind, of which pieces are taken."""
    for edit in edits:
        content = _edited(content, edit, others)[:LARGEST]
    return content


def drawn(rng: random.Random) -> list[Edit]:
    """Draw one to four edits."""
    return [
        tuple(rng.getrandbits(30) for _ in range(5))  # type: ignore[misc]
        for _ in range(1 + rng.getrandbits(2) % (1 + rng.getrandbits(2)))
    ]


def _edited(content: bytes, edit: Edit, others: Sequence[bytes]) -> bytes:
    where, what, at, length, value = edit
    opened = _opened(content) if where % 4 else None
    if opened is not None and opened[0]:
        parts, join = opened
        place = where // 4 % len(parts)
        inner = (where // 4 // len(parts), *edit[1:])
        parts[place] = _edited(parts[place], inner, parts)
        return join(parts)
    start = at % (len(content) + 1)
    span = 1 + length % (16 if length & 1 << 20 else len(content) + 1)
    return _KINDS[what % len(_KINDS)](content, start, start + span, value, others)


def _insert(content: bytes, start: int, stop: int, value: int, _: object) -> bytes:
    return content[:start] + TOKENS[value % len(TOKENS)] + content[start:]


def _overwrite(content: bytes, start: int, stop: int, value: int, _: object) -> bytes:
    number = INTEGERS[value % len(INTEGERS)]
    width = (1, 2, 4, 8)[value // 64 % 4]
    order = "little" if value // 256 % 2 else "big"
    data = (number % (1 << 8 * width)).to_bytes(width, order)  # type: ignore[arg-type]
    return content[:start] + data + content[start + width :]


def _matches(pattern: re.Pattern[bytes], content: bytes, start: int) -> list[re.Match[bytes]]:
    """Some of what the pattern matches behind a place, or else at the start of the content."""
    near = max(0, start - 1024)
    found = list(pattern.finditer(content, near, near + 2048))
    return found or list(pattern.finditer(content[:2048]))


def _number(content: bytes, start: int, stop: int, value: int, others: Sequence[bytes]) -> bytes:
    """Replace a number in a text."""
    numbers = _matches(_NUMBER, content, start)
    if not numbers:
        return _overwrite(content, start, stop, value, others)
    match = numbers[stop % len(numbers)]
    texts = (*map(str, INTEGERS), "nan", "-inf", "1e400", "1e-320", "0.5", "-0.5", "1.5", '""', "")
    return content[: match.start()] + texts[value % len(texts)].encode() + content[match.end() :]


def _fields(content: bytes, start: int, stop: int, value: int, others: Sequence[bytes]) -> bytes:
    """Swap two fields of a text, or leave one out with what separates it."""
    fields = _matches(_FIELD, content, start)
    if len(fields) < 2:
        return _flip(content, start, stop, value, others)
    first, second = sorted((stop % len(fields), value % len(fields)))
    one, two = fields[first], fields[second]
    if first == second:
        return content[: one.start()] + content[one.end() + 1 :]
    middle = content[one.end() : two.start()]
    return content[: one.start()] + two[0] + middle + one[0] + content[two.end() :]


def _flip(content: bytes, start: int, stop: int, value: int, _: object) -> bytes:
    start = min(start, len(content) - 1)
    if start < 0:
        return content
    return content[:start] + bytes([content[start] ^ 1 << value % 8]) + content[start + 1 :]


def _repeat(content: bytes, start: int, stop: int, value: int, _: object) -> bytes:
    times = min(1 + value % 64, max(1, (1 << 18) // (stop - start)))
    return content[:stop] + content[start:stop] * times + content[stop:]


def _splice(content: bytes, start: int, stop: int, value: int, others: Sequence[bytes]) -> bytes:
    other = others[value % len(others)] if others else content
    at = value // 7 % (len(other) + 1)
    end = stop if value & 1 << 28 else start
    return content[:start] + other[at : at + stop - start] + content[end:]


def _swap(content: bytes, start: int, stop: int, value: int, _: object) -> bytes:
    other = stop + value % (len(content) + 1)
    end = other + stop - start
    pieces = content[other:end], content[stop:other], content[start:stop]
    return content[:start] + b"".join(pieces) + content[end:]


def _noise(content: bytes, start: int, stop: int, value: int, _: object) -> bytes:
    stop = min(stop, start + 64)
    return content[:start] + random.Random(value).randbytes(stop - start) + content[stop:]


def _fill(content: bytes, start: int, stop: int, value: int, _: object) -> bytes:
    return (
        content[:start] + (b"\0", b"\xff", b" ", b"0")[value % 4] * (stop - start) + content[stop:]
    )


_KINDS: tuple[Callable[[bytes, int, int, int, Sequence[bytes]], bytes], ...] = (
    lambda content, start, *_: content[:start],
    lambda content, start, stop, *_: content[:start] + content[stop:],
    *(_insert, _insert, _overwrite, _overwrite, _number, _number, _fields, _flip, _flip),
    *(_repeat, _splice, _swap, _noise, _fill),
)


def _opened(content: bytes) -> Opened | None:
    """Parts of a file whose format protects them, and what joins them again; None for others."""
    for start, opener in _OPENERS.items():
        if content.startswith(start):
            try:
                return opener(content)
            except (ValueError, OSError, *DAMAGE):
                return None
    if len(content) > 10 and content[8:10] == b'{"' and content[4:8] == bytes(4):
        return _safetensors(content)
    return None


def _zip(content: bytes) -> Opened:
    with zipfile.ZipFile(BytesIO(content)) as archive:
        names = archive.namelist()
        parts = [archive.read(name) for name in names]

    def join(parts: list[bytes]) -> bytes:
        file = BytesIO()
        with zipfile.ZipFile(file, "w") as archive:
            for name, part in zip(names, parts, strict=True):
                archive.writestr(zipfile.ZipInfo(name), part)
        return file.getvalue()

    return parts, join


def _npy(content: bytes) -> Opened:
    end = 10 + int.from_bytes(content[8:10], "little")

    def join(parts: list[bytes]) -> bytes:
        header = parts[0][: 1 << 15]
        header = header.rstrip(b"\n ") + b" " * 4 + b"\n"
        header = b" " * 0 + header
        return content[:8] + len(header).to_bytes(2, "little") + header + parts[1]

    return [content[10:end], content[end:]], join


def _png(content: bytes) -> Opened:
    chunks, at = [], 8
    while at + 12 <= len(content):
        length = int.from_bytes(content[at : at + 4], "big")
        chunks.append(content[at + 4 : at + 8 + length])
        at += 12 + length

    def join(parts: list[bytes]) -> bytes:
        packed = (
            struct.pack(">I", max(0, len(part) - 4)) + part + struct.pack(">I", zlib.crc32(part))
            for part in parts
        )
        return content[:8] + b"".join(packed)

    return chunks, join


def _safetensors(content: bytes) -> Opened:
    end = 8 + int.from_bytes(content[:8], "little")

    def join(parts: list[bytes]) -> bytes:
        return len(parts[0]).to_bytes(8, "little") + b"".join(parts)

    return [content[8:end], content[end:]], join


def _cache(content: bytes) -> Opened:
    """A cache file of ours: see data/cache_file.py."""
    _, length, _ = struct.unpack_from("<8sQQ", content)
    head, blocks = content[24 : 24 + length], content[24 + length :]

    def join(parts: list[bytes]) -> bytes:
        head, blocks = parts
        try:
            header = json.loads(head)
            arrays, check = header["arrays"], 0
            for _, _, count, offset in arrays:
                check = zlib.crc32(blocks[offset : offset + 4 * count], check)
            if not len(blocks) % 2:
                header["check"] = check
            head = json.dumps(header).encode()
        except (ValueError, TypeError, KeyError, RecursionError):
            pass
        return struct.pack("<8sQQ", content[:8], len(head), zlib.crc32(head)) + head + blocks

    return [head, blocks], join


def _protobuf(content: bytes) -> Opened:
    """Fields of a message: without tag and length those that have a length, others with the tag."""
    parts, tags, at = [], [], 0

    def varint() -> int:
        nonlocal at
        value = shift = 0
        while True:
            byte = content[at]
            at += 1
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value

    while at < len(content):
        start, tag = at, varint()
        kind = tag & 7
        if kind == 2:
            head = content[start:at]
            length = varint()
            if at + length > len(content):
                raise ValueError("not a message")
            parts.append(content[at : at + length])
            tags.append(head)
            at += length
            continue
        if kind == 0:
            varint()
        elif kind in (1, 5):
            at += 8 if kind == 1 else 4
        else:
            raise ValueError("not a message")
        parts.append(content[start:at])
        tags.append(b"")

    def join(parts: list[bytes]) -> bytes:
        joined = b""
        for tag, part in zip(tags, parts, strict=True):
            length, head = len(part), b""
            while tag:
                head += bytes([length & 127 | (128 if length > 127 else 0)])
                length >>= 7
                if not length:
                    break
            joined += tag + head + part
        return joined

    return parts, join


_OPENERS: dict[bytes, Callable[[bytes], Opened]] = {
    b"PK\x03\x04": _zip,
    b"\x93NUMPY": _npy,
    b"\x89PNG\r\n\x1a\n": _png,
    b"faceuq\r\n": _cache,
    b"\x08\x08": _protobuf,  # an ONNX file of version 8 of the format
    b"\x0a": _protobuf,  # messages within
    b"\x12": _protobuf,
}
