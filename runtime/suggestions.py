"""Suggest what to type instead: a known name for one that is unknown, the command that installs what is missing."""

from __future__ import annotations

import re
from collections.abc import Iterable

#: The least similarity of a suggestion, and one that is a typing error, as `difflib.SequenceMatcher.ratio` measures them.
_LEAST_RATIO, _TYPING_ERROR_RATIO = 0.6, 0.9


def suggestion(name: str, known: Iterable[str]) -> str | None:
    """Return the known name that ``name`` probably means; None where none is near.

    The beginning or a part of a known name counts more than its letters: of several, the shortest, and of variants of
    one length the middle one (``rpi4b-2gb`` of 1, 2, 4 and 8 GB). Then comes a name with a typing error, then the longest
    that ``name`` begins with, then the most similar; of equally similar names, one of the same letters in another order.
    Case and punctuation do not count.
    """
    asked = _bare(name)
    by_name = {each: _bare(each) for each in sorted(known)}
    if not asked or not by_name:
        return None
    beginning = [each for each, bare in by_name.items() if bare.startswith(asked)]
    if longer := beginning or [each for each, bare in by_name.items() if asked in bare]:
        shortest = min(len(by_name[each]) for each in longer)
        variants = [each for each in longer if len(by_name[each]) == shortest]
        return variants[(len(variants) - 1) // 2]
    most_similar, ratio = _most_similar(asked, by_name)
    beginnings = [each for each, bare in by_name.items() if len(bare) > 2 and asked.startswith(bare)]
    if beginnings and ratio < _TYPING_ERROR_RATIO:
        return max(beginnings, key=lambda each: len(by_name[each]))
    return most_similar if ratio >= _LEAST_RATIO else None


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return the question with the suggestion, and a space after it; nothing where no name is near."""
    near = suggestion(name, known)
    return f"did you mean {near!r}? " if near else ""


def install(extra: str) -> str:
    """Return the advice that installs an optional part of HyPS, which is on no package index."""
    return f"run in the folder of HyPS's source: pip install '.[{extra}]'"


def _most_similar(asked: str, by_name: dict[str, str]) -> tuple[str, float]:
    import difflib  # only a wrong name needs it

    ratios = {name: difflib.SequenceMatcher(None, bare, asked).ratio() for name, bare in by_name.items()}
    best = max(by_name, key=lambda name: (ratios[name], sorted(by_name[name]) == sorted(asked), -len(name), name))
    return best, ratios[best]


def _bare(name: str) -> str:
    return re.sub(r"[\W_]+", "", name).casefold()
