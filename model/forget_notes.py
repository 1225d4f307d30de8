"""Notes in a home that queries were forgotten, for a night that does not read the topic that says so.

A service leaves one where the lake lies in its own home; the next night on that home takes them over into the lake's
list. One file a query, so that nobody has to wait for anybody.
"""

import hashlib
from pathlib import Path

from pydantic import BaseModel

from feature_repo.atomic import atomic_write
from model.forgetting import Forgotten, Listed

_FOLDER = "forget-notes"


class _Note(BaseModel):
    query_id: str
    before: int


def leave_note(home: Path, query_id: str, before: int) -> bool:
    """Note that a query is forgotten as of a moment (ms); whether there is a lake that this is of use to.

    Raises:
        OSError: the home cannot be written.
    """
    if not (home / "lake" / "clicks").is_dir():
        return False
    name = hashlib.sha256(query_id.encode("utf-8", "surrogatepass")).hexdigest()
    with atomic_write(home / _FOLDER / f"{name}.json") as staging:
        staging.write_text(_Note(query_id=query_id, before=before).model_dump_json())
    return True


def taken_notes(home: Path) -> tuple[Listed, list[Path]]:
    """What the notes say, and their files, to be deleted once the lake's list has it. A note that comes meanwhile is a
    new file."""
    for file in (home / _FOLDER).glob("*.json"):
        file.replace(file.with_suffix(".taken"))
    files = sorted((home / _FOLDER).glob("*.taken"))
    found = [_Note.model_validate_json(file.read_text()) for file in files]
    return {note.query_id: Forgotten(before=note.before) for note in found}, files
