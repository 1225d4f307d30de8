"""Arrays in safetensors files, mapped into memory."""

import ctypes
import json
import math
import sys
import weakref
from mmap import ALLOCATIONGRANULARITY, MAP_ANONYMOUS, MAP_PRIVATE, PROT_READ, PROT_WRITE, mmap
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


def writable(array: Array, room: int = 0) -> Array:
    """A copy to write to. A mapped file is mapped once more, copied where it is written to: what nobody touches takes
    no memory, and processes of one machine share it.

    Args:
        room: So many rows more, of any values, behind those of a mapped file, if there are addresses for them: a
            table that grows must not be copied.
    """
    if isinstance(array, np.memmap) and isinstance(array.base, mmap):  # not for a part of one
        try:
            return _mapped(array, room)
        except OSError:  # where addresses are counted as memory there may be none for the room
            return _mapped(array, 0)
    return np.array(array, order="C")


def _mapped(array: np.memmap, room: int) -> Array:
    """The file at the beginning of reserved addresses. NumPy cannot do that, since Python's ``mmap`` chooses where."""
    start = array.offset // ALLOCATIONGRANULARITY * ALLOCATIONGRANULARITY
    skipped, shape = array.offset - start, (len(array) + room, *array.shape[1:])
    filled = -(-(skipped + array.nbytes) // ALLOCATIONGRANULARITY) * ALLOCATIONGRANULARITY
    size = max(filled, skipped + math.prod(shape) * array.itemsize)
    private = MAP_PRIVATE | _NORESERVE
    address = _map(None, size, PROT_READ | PROT_WRITE, private | MAP_ANONYMOUS, -1, 0)
    try:
        with Path(str(array.filename)).open("rb") as file:
            _map(address, filled, PROT_READ | PROT_WRITE, private | _FIXED, file.fileno(), start)
    except BaseException:
        _LIBC.munmap(address, size)
        raise
    memory = (ctypes.c_char * size).from_address(address)
    # Not at the exit of the process, where threads may still read.
    weakref.finalize(memory, _LIBC.munmap, address, size).atexit = False
    return np.frombuffer(memory, array.dtype, math.prod(shape), skipped).reshape(shape)


def _map(address: int | None, size: int, access: int, flags: int, file: int, offset: int) -> int:
    mapped = _LIBC.mmap(address, size, access, flags, file, offset)
    if mapped in (None, ctypes.c_void_p(-1).value):
        raise OSError(ctypes.get_errno(), f"{size:,} bytes of addresses cannot be had")
    return mapped


_LIBC = ctypes.CDLL(None, use_errno=True)
_LIBC.mmap.restype = ctypes.c_void_p
_LIBC.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
_LIBC.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
# Python's mmap has no names for these. The second is a hint, and of Linux alone.
_FIXED, _NORESERVE = 0x10, 0x4000 if sys.platform == "linux" else 0
