"""Random numbers that depend on a key alone: splitmix64."""

import numpy as np

Array = np.ndarray
STEP = np.uint64(0x9E3779B97F4A7C15)


def mix(state: Array) -> Array:
    """64 bits → 64 bits that look random: splitmix64's output function."""
    with np.errstate(over="ignore"):
        z = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return z ^ (z >> np.uint64(31))


def unit(bits: Array) -> Array:
    """64 bits → numbers in [0, 1)."""
    return (bits >> np.uint64(11)) * 2.0**-53
