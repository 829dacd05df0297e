"""What a training says about itself: one JSON line per event and, by request, TensorBoard."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tts_core.atomic_files import append_line, compact_json, write_text
from tts_core.errors import WorkbookError


class Logs:
    """OUT/train.jsonl, OUT/validation.jsonl, and OUT/tensorboard/ where it is asked for. Used by
    one process.
    """

    def __init__(self, out: Path, step: int, tensorboard: bool = False) -> None:
        """Lines after `step` are cut off: a killed run wrote them behind its last checkpoint and
        will write them again.
        """
        self.out = out
        for path in sorted(out.glob("*.jsonl")):
            _cut_off(path, step)
        self._board = _open_board(out / "tensorboard", step) if tensorboard else None

    def write(self, name: str, step: int, values: Mapping[str, Any]) -> None:
        """Append `values` at `step` to OUT/NAME.jsonl."""
        line = {"step": step}
        for key, value in values.items():
            line[key] = _json_value(value)
        append_line(self.out / f"{name}.jsonl", compact_json(line))
        if self._board is None:
            return
        for key, value in values.items():
            if isinstance(value, int | float):
                self._board.add_scalar(f"{name}/{key}", value, step)

    def close(self) -> None:
        if self._board is not None:
            self._board.close()


def _cut_off(path: Path, step: int) -> None:
    lines = path.read_text(encoding="utf-8").splitlines()
    kept = [line for line in lines if _step_of(line) <= step]
    write_text(path, "".join(line + "\n" for line in kept))


def _step_of(line: str) -> float:
    """The step of a line; infinity for one that a kill cut in half."""
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return math.inf


def _json_value(value: Any) -> Any:
    """JSON has no infinity and no NaN: null stands for either."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _open_board(folder: Path, step: int) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise WorkbookError(
            f"--tensorboard needs a package that is not installed ({error}): pip install"
            " 'tts-overfit-workbook[tensorboard]', or leave the flag out; the JSONL logs are"
            " written anyway"
        ) from error
    return SummaryWriter(str(folder), purge_step=step + 1)
