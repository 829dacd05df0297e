"""Results on disk, one file per trial: complete under its digest, or not there. Two writers of one
trial do no harm.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from tts_core.errors import WorkbookError
from tts_core.speech.audio import atomic_path
from tts_workbook.trials.trial_result import AnyTrial, TrialResult, TrialT, result_from_dict


class Store:
    """A folder of results. `recorded` are read-only results from elsewhere (a committed record)
    that also count.
    """

    def __init__(self, folder: Path | str, recorded: Iterable[TrialResult] = ()) -> None:
        self.folder = Path(folder)
        self._recorded = {result.digest: result for result in recorded}

    def path(self, trial: AnyTrial) -> Path:
        return self.folder / f"{trial.digest}.json"

    def get(self, trial: AnyTrial) -> TrialResult | None:
        """The stored result of this very trial, or None. Raises WorkbookError naming a file that is
        broken.
        """
        path = self.path(trial)
        if not path.exists():
            return self._recorded.get(trial.digest)
        return read_result(path)

    def put(self, result: TrialResult) -> None:
        """Write the result atomically; a result that is there already is replaced by an equal
        one.
        """
        with atomic_path(self.path(result.trial)) as temporary:
            temporary.write_text(json.dumps(result.to_dict(), allow_nan=False), encoding="utf-8")

    def missing(self, trials: Iterable[TrialT]) -> list[TrialT]:
        """Those without a result, each digest once, in order."""
        wanted = {trial.digest: trial for trial in trials}
        return [trial for trial in wanted.values() if self.get(trial) is None]


def read_result(path: Path) -> TrialResult:
    """Raises WorkbookError naming the file where it is not a whole result."""
    try:
        return result_from_dict(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError, WorkbookError) as error:  # TypeError: JSON, but no object
        raise WorkbookError(f"{path}: {error}") from error
