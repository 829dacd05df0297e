"""Names of modules and parameters as paths with dots between."""

from __future__ import annotations

from collections.abc import Sequence


def common_path(names: Sequence[str]) -> str:
    """The longest module path that all names share; empty where they share none."""
    split = [name.split(".") for name in names]
    shared = []
    for parts in zip(*split, strict=False):
        if len(set(parts)) > 1:
            break
        shared.append(parts[0])
    return ".".join(shared)
