"""What a misspelled name was probably meant to be, for messages that ask "did you mean ...?"."""

from __future__ import annotations

from collections.abc import Iterable


def nearest(name: str, known: Iterable[str], *, similarity: float = 0.6) -> str | None:
    """Return the name among *known* that is most like *name*; ``None`` if none is.

    *similarity* is the least that counts, from 0 to 1.
    """
    from difflib import get_close_matches  # noqa: PLC0415 - 5 ms that only messages need

    near = get_close_matches(name, list(known), n=1, cutoff=similarity)
    return near[0] if near else None
