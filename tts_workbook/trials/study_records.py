"""Recorded results of the studies: compact, committed, with their provenance.
`benchmarks/evidence.py` writes them.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable
from pathlib import Path

from tts_core.errors import WorkbookError
from tts_core.speech.audio import atomic_path
from tts_workbook.trials.trial_result import TrialResult, result_from_dict

DRAWN = ("over_constant", "share_steps", "shares")
STUDY_RECORDS = Path(__file__).resolve().parents[2] / "benchmarks" / "results" / "evidence"


def study_record_path(study: str, folder: Path = STUDY_RECORDS) -> Path:
    return folder / f"{study}.json"


def write_study_record(
    study: str, results: Iterable[TrialResult], provenance: dict, folder: Path = STUDY_RECORDS
) -> None:
    """Write the results of one study atomically, a line each; folders are named by their last part,
    curves are those drawn.
    """
    rows = []
    for result in results:
        clips = tuple(
            dataclasses.replace(clip, root=Path(clip.root).name) for clip in result.trial.clips
        )
        curves = {name: result.curves[name] for name in DRAWN if name in result.curves}
        portable = dataclasses.replace(
            result, trial=dataclasses.replace(result.trial, clips=clips), curves=curves
        )
        rows.append(json.dumps(portable.to_dict(), allow_nan=False))
    with atomic_path(study_record_path(study, folder)) as temporary:
        temporary.write_text(
            f'{{"study": {json.dumps(study)}, "provenance": {json.dumps(provenance)},'
            ' "results": [\n' + ",\n".join(rows) + "\n]}\n",
            encoding="utf-8",
        )


def read_study_record(study: str, folder: Path = STUDY_RECORDS) -> tuple[list[TrialResult], dict]:
    """(results, provenance) of a recorded study. Raises WorkbookError naming the command that makes
    it.
    """
    path = study_record_path(study, folder)
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        return [result_from_dict(row) for row in record["results"]], record["provenance"]
    except FileNotFoundError:
        raise WorkbookError(
            f"there is no recorded study {path}; `make evidence` computes it"
        ) from None
    except (ValueError, KeyError, TypeError, WorkbookError) as error:
        raise WorkbookError(
            f"{path}: not a recorded study ({error}); `make evidence` computes it anew"
        ) from error
