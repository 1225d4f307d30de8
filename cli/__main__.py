"""``dat``, ``python -m cli``, and the file that spark-submit takes: ``spark-submit … cli/__main__.py nightly …``."""

import signal
import sys
from pathlib import Path

if not __package__:
    sys.path[0] = str(Path(__file__).parents[1])


def main() -> None:
    """Run a verb; Ctrl-C ends it without a traceback also in the second that the imports take."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    from cli.main import main as run

    run()


if __name__ == "__main__":
    main()
