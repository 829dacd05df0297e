"""What a selection needs from earlier notebooks that it does not run itself, and what in a run
folder is stale.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tts_core.errors import WorkbookError
from tts_workbook.runner import plan
from tts_workbook.runner.parameters import FIELDS, repository_root
from tts_workbook.runner.run_folder import NotebookState, find_defect, read_state


def command_for(
    sources: Mapping[str, plan.Source], numbers: list[str], given: Mapping[str, Any], out: Path
) -> str:
    """The command line that runs `numbers` with what was given."""
    words = ["tts-workbook", "run", "--only", ",".join(numbers)]
    notebooks = next(iter(sources.values())).path.parent
    if notebooks != repository_root() / "notebooks":
        words += ["--notebooks", str(notebooks)]
    for name, value in given.items():
        if name == "out" or (name == "subjects" and value == given.get("subject")):
            continue
        words += [f"--{name}", str(value)] if FIELDS[name].option else ["-p", f"{name}={value}"]
    return shlex.join([*words, "--out", str(out)])


def usable(out: Path, sources: Mapping[str, plan.Source]) -> dict[str, NotebookState]:
    """Number -> state of the notebooks whose results in `out` are whole."""
    states = {}
    for number, source in sources.items():
        state = read_state(out, number)
        if state is not None and find_defect(out, number, source.name) is None:
            states[number] = state
    return states


def check_upstream(
    inputs: plan.Inputs, selection: list[str], given: Mapping[str, Any], out: Path
) -> list[str]:
    """Raise WorkbookError, naming the command that helps, when a selected notebook reads results
    that are not there, or that were made with other parameters or other data. Returns warnings:
    results of another version of the package.
    """
    warnings = []
    there = usable(out, inputs.sources)
    for number in selection:
        needed = plan.upstream_of(number, {*selection, *there})
        if number == plan.FINDINGS and not needed:
            every = [*plan.before(number, inputs.sources), number]
            raise WorkbookError(
                f"notebook {number} reads the verdicts of the earlier ones, but {out} holds none.\n"
                f"Make them with: {command_for(inputs.sources, every, given, out)}"
            )
        for other in needed:
            if other not in selection:
                warnings += _check_one(inputs, number, other, there.get(other), given, out)
    return warnings


def _check_one(
    inputs: plan.Inputs,
    number: str,
    other: str,
    state: NotebookState | None,
    given: Mapping[str, Any],
    out: Path,
) -> list[str]:
    """Can `number` read what `other` left in `out`? `state` is None where that is not whole."""
    command = command_for(inputs.sources, [other, number], given, out)
    reads = f"notebook {number} reads the results of notebook {other} in {out}"
    if state is None:
        defect = find_defect(out, other, inputs.sources[other].name)
        raise WorkbookError(f"{reads}, but {defect}.\nMake them with: {command}")
    recorded = state.parts
    expected = inputs.parts(other, recorded["upstream"])
    asked = {part: expected.get(part) for part in ("parameters", "data", "subject")}
    different = plan.changed_parts(recorded, {**recorded, **asked})
    if different:
        raise WorkbookError(
            f"{reads}, but those were made with other inputs ({', '.join(different)}).\n"
            f"Make them anew with: {command}"
        )
    if recorded["package"] == inputs.package and recorded["cells"] == expected["cells"]:
        return []
    return [
        f"notebook {number} reads results of notebook {other} that an earlier state of the source"
        " made"
    ]


def find_stale(inputs: plan.Inputs, out: Path) -> dict[str, str]:
    """Number -> what has changed, of whole results that this run's inputs would not make again."""
    stale = {}
    done = usable(out, inputs.sources)
    for number, state in done.items():
        needed = plan.upstream_of(number, done)
        upstream = {other: done[other].key for other in needed if other in done}
        expected = inputs.parts(number, upstream)
        if plan.key_of(expected) != state.key:
            stale[number] = ", ".join(plan.changed_parts(state.parts, expected))
    return stale
