"""Links from the documents into the source: checked, and shown as the file's name, since the site has no source."""

import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
_INTO_SOURCE = re.compile(r"\[([^\]]+)\]\(\.\./([^)#]+)(?:#[^)]*)?\)")


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """MkDocs calls it for each page.

    Raises:
        FileNotFoundError: a link's file does not exist.
    """

    def plain(link: re.Match[str]) -> str:
        if not (ROOT / link[2]).exists():
            raise FileNotFoundError(f"{page.file.src_path} links to {link[2]}, which does not exist")
        return link[1]

    return _INTO_SOURCE.sub(plain, markdown)
