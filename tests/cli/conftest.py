"""Running a verb in the test's own process, as ``dat`` does: errors become a sentence and a status."""

import signal
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest

import cli.main


@dataclass(frozen=True)
class Ended:
    """How a verb ended."""

    status: int
    out: str
    errors: str

    @property
    def sentence(self) -> str:
        """The one line that says what was wrong."""
        assert self.status != 0, self.out
        lines = [line for line in self.errors.splitlines() if line.startswith("dat: ")]
        assert len(lines) == 1, self.errors
        return lines[0].removeprefix("dat: ")


Run = Callable[..., Ended]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Run]:
    """``run("bundles", "--home", folder)`` is ``dat bundles --home …``; keyword arguments are the environment's."""
    handlers = {sign: signal.getsignal(sign) for sign in (signal.SIGINT, signal.SIGTERM)}

    def run(*arguments: object, **environment: str) -> Ended:
        with monkeypatch.context() as patch:
            patch.setattr(sys, "argv", ["dat", *map(str, arguments)])
            for name, value in environment.items():
                patch.setenv(name, value)
            with pytest.raises(SystemExit) as ended:
                cli.main.main()
        return Ended(ended.value.code or 0, *capsys.readouterr())

    yield run
    for sign, handler in handlers.items():
        signal.signal(sign, handler)
