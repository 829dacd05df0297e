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
from tts_workbook.runner.folder import find_defect, read_state
from tts_workbook.runner.order import before
from tts_workbook.runner.parameters import Parameters, repository_root

# these have an option of their own, the others go through -p
OPTIONS = ("profile", "data", "clip", "subject")


def command_for(
    sources: Mapping[str, plan.Source], numbers: list[str], given: Mapping[str, Any], out: Path
) -> str:
    """The command line that runs `numbers` with what was given."""
    words = ["tts-workbook", "run", "--only", ",".join(numbers)]
    notebooks = next(iter(sources.values())).path.parent
    if notebooks != repository_root() / "notebooks":
        words += ["--notebooks", str(notebooks)]
    for name, value in given.items():
        if name in OPTIONS:
            words += [f"--{name}", str(value)]
        elif name != "out":
            words += ["-p", f"{name}={value}"]
    return shlex.join([*words, "--out", str(out)])


def usable(out: Path, numbers: Mapping[str, Any]) -> list[str]:
    """The notebooks among `numbers` whose results in `out` are whole."""
    return [number for number in numbers if find_defect(out, number) is None]


def check_upstream(
    sources: Mapping[str, plan.Source],
    selection: list[str],
    settled: Mapping[str, Parameters],
    given: Mapping[str, Any],
    out: Path,
    data_hash: str,
    package_hash: str,
    subject_hash: str = "",
) -> list[str]:
    """Raise WorkbookError, naming the command that helps, when a selected notebook reads results
    that are not there, or that were made with other parameters or other data. Returns warnings:
    results of another version of the package.
    """
    warnings = []
    available = {*selection, *usable(out, sources)}
    for number in selection:
        needed = plan.upstream_of(number, available)
        if plan.UPSTREAM.get(number) == plan.EVERY_EARLIER and not needed:
            raise WorkbookError(
                f"notebook {number} reads the verdicts of the earlier ones, but {out} holds none.\n"
                "Make them with: "
                + command_for(sources, [*before(number, sources), number], given, out)
            )
        for other in needed:
            if other in selection:
                continue
            command = command_for(sources, [other, number], given, out)
            defect = find_defect(out, other)
            if defect is not None:
                raise WorkbookError(
                    f"notebook {number} reads the results of notebook {other} in {out}, but"
                    f" {defect}.\nMake them with: {command}"
                )
            state = read_state(out, other)
            expected = _expected_parts(
                sources,
                other,
                settled,
                package_hash,
                data_hash,
                state["parts"]["upstream"],
                subject_hash,
            )
            inputs = {part: expected.get(part) for part in ("parameters", "data", "subject")}
            different = plan.changed_parts(state["parts"], {**state["parts"], **inputs})
            if different:
                raise WorkbookError(
                    f"notebook {number} reads the results of notebook {other} in {out}, but those"
                    f" were made with other inputs ({', '.join(different)}).\nMake them anew with:"
                    f" {command}"
                )
            if (
                state["parts"]["package"] != package_hash
                or state["parts"]["cells"] != expected["cells"]
            ):
                warnings.append(
                    f"notebook {number} reads results of notebook {other} that an earlier state of"
                    " the source made"
                )
    return warnings


def find_stale(
    sources: Mapping[str, plan.Source],
    settled: Mapping[str, Parameters],
    out: Path,
    data_hash: str,
    package_hash: str,
    subject_hash: str = "",
) -> dict[str, str]:
    """Number -> what has changed, of whole results that this run's inputs would not make again."""
    stale = {}
    done = usable(out, sources)
    for number in done:
        state = read_state(out, number)
        upstream = {
            other: read_state(out, other)["key"]
            for other in plan.upstream_of(number, done)
            if other in done
        }
        expected = _expected_parts(
            sources, number, settled, package_hash, data_hash, upstream, subject_hash
        )
        if plan.key_of(expected) != state["key"]:
            stale[number] = ", ".join(plan.changed_parts(state["parts"], expected))
    return stale


def _expected_parts(
    sources: Mapping[str, plan.Source],
    number: str,
    settled: Mapping[str, Parameters],
    package_hash: str,
    data_hash: str,
    upstream: Mapping[str, str],
    subject_hash: str,
) -> dict[str, Any]:
    return plan.key_parts(
        sources[number], settled[number], package_hash, data_hash, upstream, subject_hash
    )
