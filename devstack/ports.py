"""Loopback ports for the servers of this machine's stack."""

import random
import socket
from pathlib import Path

LOWEST = 15_000
_EPHEMERAL = Path("/proc/sys/net/ipv4/ip_local_port_range")
_USUAL_EPHEMERAL = 32_768  # Linux's default


def free_port() -> int:
    """A port that nobody listens on, below those that the system gives to outgoing connections.

    A server opens its port only some time after it was chosen, and takes it again after a restart. A port of the
    system's own choice (``bind`` to 0) may belong to another process's connection by then.

    Raises:
        OSError: a hundred ports in a row were taken.
    """
    highest = int(_EPHEMERAL.read_text().split()[0]) if _EPHEMERAL.is_file() else _USUAL_EPHEMERAL
    ports = range(LOWEST, highest) if highest - LOWEST > 1_000 else range(LOWEST, _USUAL_EPHEMERAL)
    # By the system's randomness: processes that seeded Python's alike would choose alike.
    for port in random.SystemRandom().sample(ports, 100):
        if not in_use(port):
            return port
    raise OSError(f"found no free port between {ports.start} and {ports.stop - 1} on 127.0.0.1 in 100 attempts")


def in_use(port: int) -> bool:
    """Whether another process listens on it; one that only lingers after a kill does not count."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return True
    return False
