"""Progress on the terminal: a spinner or a bar while a stage runs, a line with its time when it is done."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

console = Console(highlight=False)


class TerminalProgress:
    """Stages on a rich console; on a pipe only the finished lines."""

    def __init__(self, to: Console = console):
        self.console = to

    @contextmanager
    def stage(self, name: str, total: int | None = None) -> Iterator[Callable[[int], None]]:
        """See :class:`spark_jobs.progress.Progress`."""
        started = time.perf_counter()
        if not self.console.is_terminal:
            yield lambda more: None
            self._done(name, started)
            return
        columns = [SpinnerColumn(), TextColumn("{task.description}")]
        if total is not None:
            columns += [BarColumn(), MofNCompleteColumn()]
        with Progress(*columns, TimeElapsedColumn(), console=self.console, transient=True) as bar:
            task = bar.add_task(name, total=total)
            yield lambda more: bar.advance(task, more)
        self._done(name, started)

    def tell(self, text: str) -> None:
        """See :class:`spark_jobs.progress.Progress`."""
        self.console.print(f"    {text}", style="dim", markup=False)

    def _done(self, name: str, started: float) -> None:
        self.console.print(f"  [green]✓[/] {name} [dim]{time.perf_counter() - started:.1f} s[/]")
