"""The one error that users are meant to read."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

Answer = TypeVar("Answer")


class WorkbookError(Exception):
    """Something the user can mend. The message names the file or value, what was seen, what is
    wanted and the way out.

    The command line prints it without a traceback; anything else that escapes is a bug and keeps
    its traceback.
    """


class CacheError(WorkbookError):
    """The disk, the cache or the system failed, not a clip: it stops a run, where a broken clip is
    left out.
    """


def or_reason(ask: Callable[[], Answer]) -> tuple[Answer | None, str]:
    """(what `ask` returns, ""), or (None, why it cannot be told): where the reason is a result and
    no crash.
    """
    try:
        return ask(), ""
    except WorkbookError as error:
        return None, str(error)
