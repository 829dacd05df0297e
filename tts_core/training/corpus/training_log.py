"""What a training says about itself: one JSON line per event and, by request, TensorBoard."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tts_core.atomic_files import append_line, compact_json, write_text
from tts_core.errors import WorkbookError


def _plain(value: Any) -> Any:
    """JSON has no infinity and no NaN: null stands for either."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


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
            kept = [
                line
                for line in path.read_text(encoding="utf-8").splitlines()
                if _step_of(line) <= step
            ]
            write_text(path, "".join(line + "\n" for line in kept))
        self._board = _open_board(out / "tensorboard", step) if tensorboard else None

    def write(self, name: str, step: int, values: Mapping[str, Any]) -> None:
        """Append `values` at `step` to OUT/NAME.jsonl."""
        append_line(
            self.out / f"{name}.jsonl",
            compact_json({"step": step, **{key: _plain(value) for key, value in values.items()}}),
        )
        if self._board is not None:
            for key, value in values.items():
                if isinstance(value, int | float):
                    self._board.add_scalar(f"{name}/{key}", value, step)

    def close(self) -> None:
        if self._board is not None:
            self._board.close()


def _step_of(line: str) -> float:
    """The step of a line; infinity for one that a kill cut in half."""
    try:
        return json.loads(line)["step"]
    except (ValueError, KeyError, TypeError):
        return math.inf


def _open_board(folder: Path, step: int):
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise WorkbookError(
            f"--tensorboard needs a package that is not installed ({error}): pip install"
            " 'tts-overfit-workbook[tensorboard]', or leave the flag out; the JSONL logs are"
            " written anyway"
        ) from error
    return SummaryWriter(str(folder), purge_step=step + 1)
