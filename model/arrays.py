"""Arrays in safetensors files, mapped into memory."""

import json
import math
from mmap import mmap
from pathlib import Path

import numpy as np

Array = np.ndarray
_KINDS = {"F32": np.float32, "F64": np.float64, "I32": np.int32, "I64": np.int64}


def map_arrays(path: Path) -> dict[str, Array]:
    """The arrays of a safetensors file, mapped into memory: read as they are touched, copied where written to.

    Raises:
        OSError, ValueError, KeyError: it cannot be read, or is not such a file.
    """
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length > path.stat().st_size:
            raise ValueError(f"{path.name} is not a safetensors file, or not whole")
        header = json.loads(file.read(length))
    arrays = {}
    for name, entry in header.items():
        if name != "__metadata__":
            offset, shape = 8 + length + entry["data_offsets"][0], tuple(entry["shape"])
            kind = _KINDS[entry["dtype"]]
            # A file cannot be mapped at no length.
            arrays[name] = np.memmap(path, kind, "c", offset, shape) if math.prod(shape) else np.empty(shape, kind)
    return arrays


def writable(array: Array) -> Array:
    """A copy to write to. A mapped file is mapped once more, copied where it is written to: what nobody touches takes
    no memory, and processes of one machine share it.
    """
    if isinstance(array, np.memmap) and isinstance(array.base, mmap):  # not for a part of one
        return np.memmap(array.filename, array.dtype, "c", array.offset, array.shape)
    return np.array(array, order="C")
