"""Between Arrow columns and arrays."""

import numpy as np
import pyarrow as pa

Array = np.ndarray


def flat(column: pa.Array, width: int, dtype: type = np.float32) -> Array:
    """[N, width] of a list column whose rows are all that wide.

    Raises:
        ValueError: they are not.
    """
    return column.flatten().to_numpy(zero_copy_only=False).astype(dtype, copy=False).reshape(len(column), width)


def lists(values: Array) -> pa.ListArray:
    """A list column of [N, ...] float32."""
    values = np.ascontiguousarray(values, np.float32).reshape(len(values), -1)
    offsets = np.arange(len(values) + 1, dtype=np.int32) * values.shape[1]
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(values.ravel()))


def group(ids: list[str]) -> tuple[list[str], Array]:
    """The distinct ids in order of appearance, and for each of N ids its place among them: [N]."""
    places: dict[str, int] = {}
    key = np.fromiter((places.setdefault(id_, len(places)) for id_ in ids), np.int64, len(ids))
    return list(places), key
