"""Feast's values as bytes, put together from arrays: a message object for each is most of the time of a write."""

import numpy as np
import pyarrow as pa


def encode(column: pa.Array) -> list[bytes]:
    """Feast's ``Value`` message of each row, as bytes: of strings, integers, lists of floats and lists of strings.
    A column of nulls has a message without a value."""
    kind = column.type
    if pa.types.is_null(kind):
        return [b""] * len(column)
    if pa.types.is_string(kind):
        return [_message(_STRING, value.encode()) for value in column.to_pylist()]
    if pa.types.is_integer(kind):
        return [_INTEGER + _varint(value) for value in column.to_pylist()]
    if pa.types.is_list(kind) and pa.types.is_float32(kind.value_type):
        flat = np.ascontiguousarray(column.flatten().to_numpy(zero_copy_only=False), "<f4").tobytes()
        ends = (4 * np.cumsum(column.value_lengths().to_numpy(zero_copy_only=False))).tolist()
        packed = [flat[start:end] for start, end in zip([0, *ends], ends, strict=False)]
        return [_message(_FLOATS, _message(_VALUES, some) if some else b"") for some in packed]
    lists = column.to_pylist()
    return [_message(_STRINGS, b"".join(_message(_VALUES, item.encode()) for item in some)) for some in lists]


# Tags (number × 8 + wire type) of the fields of Feast's Value, FloatList and StringList, and protobuf's Timestamp.
_STRING, _INTEGER, _FLOATS, _STRINGS = b"\x12", b"\x20", b"\x82\x01", b"\x62"
_VALUES, _SECONDS, _NANOS = b"\x0a", b"\x08", b"\x10"


def _varint(value: int) -> bytes:
    value &= (1 << 64) - 1
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _message(tag: bytes, content: bytes) -> bytes:
    return tag + _varint(len(content)) + content


def timestamp(stamp_us: int) -> bytes:
    """protobuf's ``Timestamp`` of a moment (µs since the epoch)."""
    seconds, micros = divmod(stamp_us, 1_000_000)
    return _SECONDS + _varint(seconds) + (_NANOS + _varint(1_000 * micros) if micros else b"")
