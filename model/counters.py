"""Decayed counters: how much has been clicked lately, with O(1) state and no windows.

A counter with half-life h that stood at c at time t is worth ``c · 2^−(t'−t)/h`` at t'. A click adds its weight w.
With T the latest time so far, a click at t maps counters as ``c → c · 2^−ΔT/h + w · 2^−(T−t)/h``; a late click adds
what it would be worth by now. The trainer, the stream and the service share these functions.
"""

from dataclasses import dataclass

import numpy as np

from model.scan import Groups, Scan, running_maximum, scan

Array = np.ndarray


def decay(counters: Array, since_ms: Array, half_lives_ms: tuple[int, ...]) -> Array:
    """Counters [N, H] after ``since_ms`` [N] without a click. Time that runs backwards does not decay."""
    elapsed = np.maximum(since_ms, 0)[:, None] / np.asarray(half_lives_ms, np.float64)
    return (counters * np.exp2(-elapsed)).astype(np.float32)


@dataclass(frozen=True)
class Counted:
    """Counters around N clicks on G keys, and the times that they are as of."""

    counters: Scan
    last_click: Scan

    def before(self, visible: Array | None = None) -> tuple[Array, Array]:
        """Counters [N, H] before each click, and the key's latest click until then [N] ms (0: none)."""
        return self.counters.before(visible).astype(np.float32), self.last_click.before(visible)

    def after(self) -> tuple[Array, Array]:
        """Counters [G, H] after all clicks, as of the keys' latest clicks [G] ms."""
        return self.counters.after().astype(np.float32), self.last_click.after()


def count(
    groups: Groups, counters: Array, last_click: Array, times: Array, half_lives_ms: tuple[int, ...],
    weights: Array | None = None,
) -> Counted:  # fmt: skip
    """Count a batch of clicks, in order within a key.

    Args:
        groups: N clicks on G keys.
        counters: [G, H] as of ``last_click`` [G] ms.
        times: [N] event times, ms.
        weights: [N] what each click adds; None: 1.
    """
    half_lives = np.asarray(half_lives_ms, np.float64)
    key, time = groups.key[groups.order], times[groups.order]
    first = groups.rank[groups.order] == 0
    latest = running_maximum(groups, np.maximum(time, np.where(first, last_click[key], 0)))
    previous = np.where(first, last_click[key], np.r_[0, latest[:-1]][: len(latest)])
    keep, add = (np.empty((len(time), len(half_lives))) for _ in range(2))
    keep[groups.order] = np.exp2(-(latest - previous)[:, None] / half_lives)
    add[groups.order] = np.exp2(-(latest - time)[:, None] / half_lives)
    if weights is not None:
        add *= weights[:, None]
    return Counted(scan(groups, counters.astype(np.float64), keep, add), Scan(groups, last_click, latest))
