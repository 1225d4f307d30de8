"""Which partition of a topic a key belongs to, by the partitioners that Kafka's clients have."""

from collections.abc import Sequence
from typing import Literal
from zlib import crc32

import numpy as np

Array = np.ndarray
Partitioner = Literal["murmur2", "crc32"]
"""``murmur2``: the default of the Java client and of kafka-python · ``crc32``: that of librdkafka and its children."""
_MIX = np.uint32(0x5BD1E995)


def partitions_of(keys: Sequence[str], count: int, partitioner: Partitioner = "murmur2") -> Array:
    """The partitions [N], of ``count``, of records with these keys."""
    encoded = [key.encode() for key in keys]
    if partitioner == "crc32":
        return np.fromiter(map(crc32, encoded), np.int64, len(encoded)) % count
    return ((murmur2(encoded) & np.uint32(0x7FFFFFFF)) % np.uint32(count)).astype(np.int64)


def murmur2(keys: Sequence[bytes]) -> Array:
    """Kafka's 32-bit MurmurHash2 of some keys: [N] uint32. All keys go through each step at once."""
    sizes = np.fromiter(map(len, keys), np.int64, len(keys))
    starts = np.cumsum(sizes) - sizes
    data = np.frombuffer(b"".join(keys) + bytes(4), np.uint8).astype(np.uint32)
    hashes = np.uint32(0x9747B28C) ^ sizes.astype(np.uint32)
    for word in range(int(sizes.max(initial=0)) // 4):
        some = np.flatnonzero(sizes // 4 > word)
        at = starts[some] + 4 * word
        mixed = sum(data[at + byte] << np.uint32(8 * byte) for byte in range(4)) * _MIX
        mixed = (mixed ^ mixed >> np.uint32(24)) * _MIX
        hashes[some] = hashes[some] * _MIX ^ mixed
    rest = sizes % 4
    tail = starts + sizes - rest
    for byte in (2, 1, 0):
        some = np.flatnonzero(rest > byte)
        hashes[some] ^= data[tail[some] + byte] << np.uint32(8 * byte)
    hashes[rest > 0] *= _MIX
    hashes = (hashes ^ hashes >> np.uint32(13)) * _MIX
    return hashes ^ hashes >> np.uint32(15)
