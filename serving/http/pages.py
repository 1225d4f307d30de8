"""Pages of a list that changes: a page's token says what has been shown, so that nothing comes twice and nothing that
still ranks is passed over, whichever process answers, and whatever was clicked meanwhile.
"""

import base64
import binascii
import json
import zlib
from collections.abc import Sequence

from serving.http.fast_path import NotValid
from serving.outside_json import read_json

_ITEMS = 1_000  # on all pages together
LONGEST = 60_000  # of a token: with the other parameters it is a URL that the server reads


def token_of(shown: Sequence[str]) -> str | None:
    """The token of what has been shown; None: enough."""
    if len(shown) > _ITEMS:
        return None
    packed = zlib.compress(json.dumps(list(shown), separators=(",", ":")).encode(), 6)
    token = base64.urlsafe_b64encode(packed).rstrip(b"=").decode()
    return token if len(token) <= LONGEST else None


def shown_by(token: str) -> list[str]:
    """What has been shown.

    Raises:
        NotValid: the string is not such a token.
    """
    try:
        packed = base64.urlsafe_b64decode(token.encode() + b"=" * (-len(token) % 4))
        unpack = zlib.decompressobj()
        shown = read_json(unpack.decompress(packed, 300 * _ITEMS))
    except (binascii.Error, ValueError, zlib.error) as error:
        raise NotValid("next: is not the `next` of an answer.") from error
    if not isinstance(shown, list) or len(shown) > _ITEMS or not all(isinstance(id_, str) for id_ in shown):
        raise NotValid("next: is not the `next` of an answer.")
    return shown
