"""Every architecture of the benchmark: those of this folder, found by walking it, and the held-out
ones, which are named.

A module of this folder that holds an `ARCHITECTURE` is one; nothing else is to be touched for it. A
held-out architecture lives outside: whoever makes the rules of the diagnosis does not look at it,
and whoever plants its faults did not read the rules.
"""

from __future__ import annotations

import functools
import importlib
import pkgutil
from collections.abc import Iterable
from pathlib import Path

from benchmarks.planted.architecture import Architecture

HELD_OUT_MODULES = (
    "tests.tts_workbook.diagnosis.vits_like_plants",
    "tests.tts_workbook.diagnosis.token_lm_plants",
)


@functools.cache
def tuned_architectures() -> dict[str, Architecture]:
    """By name, in the order of the files: the architectures that the rules may be made on."""
    folder = Path(__file__).parent
    modules = sorted(module.name for module in pkgutil.iter_modules([str(folder)]))
    return held_by([f"{__package__}.{name}" for name in modules])


@functools.cache
def held_out_architectures() -> dict[str, Architecture]:
    """By name: the architectures that are only ever scored."""
    return held_by(HELD_OUT_MODULES)


def known_architectures() -> dict[str, Architecture]:
    """By name: all of them, the held-out ones last."""
    return {**tuned_architectures(), **held_out_architectures()}


def held_by(modules: Iterable[str]) -> dict[str, Architecture]:
    """The architectures that these modules hold. Raises ValueError where two have one name."""
    found: dict[str, Architecture] = {}
    for name in modules:
        held = getattr(importlib.import_module(name), "ARCHITECTURE", None)
        if not isinstance(held, Architecture):
            continue
        if held.name in found:
            raise ValueError(f"{name} holds a second architecture named {held.name!r}")
        found[held.name] = held
    return found
