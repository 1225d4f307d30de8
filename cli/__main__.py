"""``python -m cli``; and, for spark-submit, which takes a file: ``spark-submit … cli/__main__.py nightly …``."""

import sys
from pathlib import Path

if not __package__:
    sys.path[0] = str(Path(__file__).parents[1])

from cli.main import main  # noqa: E402

main()
