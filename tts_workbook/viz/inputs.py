"""What a picture accepts: finite numbers of the right shape; anything else is refused by the
argument's name.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from tts_core.errors import WorkbookError

SHARE_TOLERANCE = 1e-6  # a share may leave [0, 1] by so much, and shares their sum of 1


def finite_array(name: str, values: Any, dimensions: int, at_least: int = 1) -> np.ndarray:
    """`values` (array, list or tensor) as float64 with `dimensions` axes, each `at_least` long.

    Raises WorkbookError naming the argument for another shape, for what is not numbers, for NaN and
    infinities.
    """
    if hasattr(values, "detach"):
        values = values.detach().cpu().double().numpy()
    try:
        array = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise WorkbookError(f"{name}: not an array of numbers ({error})") from error
    if array.ndim != dimensions:
        raise WorkbookError(f"{name}: shape {array.shape}, but {dimensions} axes are wanted")
    if array.size == 0 or min(array.shape, default=1) < at_least:
        raise WorkbookError(
            f"{name}: shape {array.shape}, but each axis must be at least {at_least} long"
        )
    bad = ~np.isfinite(array)
    if bad.any():
        first = tuple(int(place) for place in np.argwhere(bad)[0])
        raise WorkbookError(
            f"{name}: {int(bad.sum())} of {array.size} values are not finite, the first at index "
            f"{first}; find the step or clip that made them before drawing"
        )
    return array


def finite_arrays(name: str, values: Mapping, keys: Iterable[str]) -> dict[str, np.ndarray]:
    """The entries `keys` of `values`, each (any length,) of finite numbers.

    Raises WorkbookError as `entry_of` and `finite_array` do.
    """
    return {
        key: finite_array(f"{name}.{key}", entry_of(name, values, key), dimensions=1)
        for key in keys
    }


def finite_number(name: str, value: Any) -> float:
    """`value` as a finite float; raises WorkbookError naming the argument."""
    if np.ndim(value) == 0:
        value = np.asarray(value).reshape(())
    return float(finite_array(name, value, dimensions=0))


def finite_numbers(name: str, values: Any) -> dict[str, float]:
    """A mapping with at least one entry, its values as finite floats; raises WorkbookError naming
    the entry.
    """
    return {
        str(key): finite_number(f"{name}[{key!r}]", value)
        for key, value in named(name, values).items()
    }


def numbers_from_zero(name: str, values: Any) -> dict[str, float]:
    """As `finite_numbers`; raises WorkbookError for a number below zero too."""
    numbers = finite_numbers(name, values)
    for key, number in numbers.items():
        if number < 0:
            raise WorkbookError(f"{name}[{key!r}] = {number:g}, but it must not be negative")
    return numbers


def named(name: str, values: Any) -> Mapping:
    """A mapping with at least one entry; raises WorkbookError naming the argument."""
    if not isinstance(values, Mapping):
        raise WorkbookError(
            f"{name}: a mapping from label to values is wanted, not {type(values).__name__}"
        )
    if not values:
        raise WorkbookError(f"{name}: there is nothing to draw; hand over at least one entry")
    return values


def entry_of(name: str, values: Mapping, key: str) -> Any:
    """`values[key]`; raises WorkbookError that lists what there is."""
    named(name, values)
    if key not in values:
        raise WorkbookError(f"{name}: no {key!r}; it holds {', '.join(map(repr, values))}")
    return values[key]


def curve(name: str, run: Mapping, key: str) -> tuple[np.ndarray, np.ndarray]:
    """The steps of a curve and `run[key]`, both (S,), of equal length, steps rising.

    The steps are `run["steps"]`, or `run[key + "_steps"]` for what was measured at steps of its
    own.
    """
    steps_key = f"{key}_steps" if f"{key}_steps" in named(name, run) else "steps"
    steps = finite_array(f"{name}.{steps_key}", entry_of(name, run, steps_key), dimensions=1)
    values = finite_array(f"{name}.{key}", entry_of(name, run, key), dimensions=1)
    if len(steps) != len(values):
        raise WorkbookError(
            f"{name}: {len(steps)} steps but {len(values)} values of {key!r}; they must be as many"
        )
    if (np.diff(steps) <= 0).any():
        raise WorkbookError(f"{name}.{steps_key}: must rise from entry to entry")
    return steps, values


def curves_of(
    name: str, runs: Mapping[str, Mapping], key: str
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """`curve` of each of the runs, by its name."""
    return {
        run: curve(f"{name}[{run!r}]", values, key) for run, values in named(name, runs).items()
    }


def spans(phonemes: Any, durations: Any, n_frames: int) -> np.ndarray:
    """Phoneme boundaries in frames, (N + 1,): 0, then the end of each phoneme.

    `durations` (N,) in frames, one per phoneme, their sum equal to `n_frames`. Raises WorkbookError
    otherwise.
    """
    lengths = finite_array("durations", durations, dimensions=1)
    if len(lengths) != len(phonemes):
        raise WorkbookError(
            f"durations: {len(lengths)} for {len(phonemes)} phonemes; there must be one each"
        )
    negative = lengths < 0
    if negative.any():
        raise WorkbookError(f"durations: the one of phoneme {int(np.argmax(negative))} is negative")
    if lengths.sum() != n_frames:
        raise WorkbookError(
            f"durations: they sum to {lengths.sum():g} frames, but the mel has {n_frames}"
        )
    return np.concatenate([[0.0], np.cumsum(lengths)])
