"""What a mistyped name may have been meant to be."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

LIKE = 0.7  # difflib's ratio from which two names are alike


def nearest(typed: str, names: Iterable[str], most: int = 1) -> list[str]:
    """The names most like the typed one, the best first; case, dashes and underscores are no difference.

    A name of which the beginning was typed is a candidate, however long the rest.
    """
    wanted = _plain(typed)
    ranked = []
    for name in dict.fromkeys(names):
        plain = _plain(name)
        ratio = difflib.SequenceMatcher(None, wanted, plain).ratio()
        if ratio >= LIKE or (len(wanted) > 2 and plain.startswith(wanted)):
            ranked.append((-ratio, name))
    return [name for _, name in sorted(ranked)[:most]]


def _plain(name: str) -> str:
    return name.lstrip("-").replace("-", "_").lower()
