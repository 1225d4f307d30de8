"""Ports of the local stack, and what a broker says that could not have one."""

import socket
from pathlib import Path

import pytest

from devstack.broker import _reason
from devstack.ports import free_port, in_use

RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")
LOWEST = int(RANGE.read_text().split()[0]) if RANGE.is_file() else 0


@pytest.mark.skipif(LOWEST <= 16_000, reason="the system does not say, or gives outgoing connections nearly all ports")
def test_a_free_port_is_none_that_an_outgoing_connection_may_be_given():
    assert all(port < LOWEST and not in_use(port) for port in (free_port() for _ in range(50)))


def test_a_port_is_in_use_while_somebody_listens_on_it():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", free_port()))
        taken.listen()
        assert in_use(taken.getsockname()[1])


def test_the_innermost_cause_is_told_of_a_broker_that_ends():
    log = "ERROR Exiting\nException: no\n\tat a.B.c(B.java:1)\nCaused by: BindException: in use\n\t... 18 more\n"
    assert _reason(log) == "BindException: in use" and _reason("") == "it said nothing"
