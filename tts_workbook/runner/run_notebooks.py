"""The honest runner: a notebook counts only when it demonstrably ran to its end; all else is said
aloud and recorded.

Each notebook runs in a process of its own under a temporary name. Only after validate.py found no
fault does it get its final name, and only then is its key recorded, which is what `--resume` goes
by. Several may run side by side; one starts only after those that it reads.
"""

from __future__ import annotations

import os
import queue
import signal
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tts_core.config import PRESETS
from tts_core.errors import WorkbookError
from tts_workbook.runner import plan
from tts_workbook.runner.attempt import NotebookAttempt
from tts_workbook.runner.console import Console
from tts_workbook.runner.data_hash import hash_data
from tts_workbook.runner.parameters import (
    FIELDS,
    Parameters,
    read_given,
    repository_root,
    settle,
)
from tts_workbook.runner.process import Messages
from tts_workbook.runner.record import Record
from tts_workbook.runner.run_folder import (
    NotebookState,
    RunFolder,
    find_defect,
    keep_previous,
    refuse_foreign,
    renumbered,
)
from tts_workbook.runner.upstream import check_upstream, find_stale, usable
from tts_workbook.runner.validate import ExecutionFault
from tts_workbook.source_hash import hash_source

EXIT_CODES = {"complete": 0, "failed": 1, "interrupted": 130}
TICK = 0.5  # seconds without news after which the reader is told what still runs


@dataclass(frozen=True)
class RunResult:
    """How a run ended, and where it lies."""

    status: str  # complete, failed or interrupted
    exit_code: int  # 0, 1, 130
    out: Path
    report: Path | None  # None when it could not be written


def run_notebooks(
    explicit: Mapping[str, Any],
    write_report: Callable[[Path], Path],
    only: str | Iterable[str] | None = None,
    resume: bool = False,
    notebooks_dir: Path | None = None,
    console: Console | None = None,
    environment: Mapping[str, str] | None = None,
    jobs: int = 1,
) -> RunResult:
    """Execute the notebooks of `notebooks_dir`, `jobs` side by side, each after those that it
    reads. `explicit` is what the command line gave, by parameter name; `write_report` makes the
    page of a run folder, however the run ended.

    Raises WorkbookError, before anything runs, for parameters, selections, data and folders that
    cannot be.
    """
    if jobs < 1:
        raise WorkbookError(f"jobs = {jobs}: at least one notebook has to run at a time")
    console = console or Console()
    root = repository_root()
    sources = plan.discover(Path(notebooks_dir or root / "notebooks").absolute())
    given = read_given(explicit, os.environ if environment is None else environment, Path.cwd())
    given = both_names(given)
    addresses = addresses_of(given)
    selection = plan.notebooks_asked_for(sources, only)
    if addresses:
        chosen = selection if only is not None else None
        selection = _with_subject(explicit, sources, chosen, alone=bool(given.get("subject")))
    latest = root / "runs" / "latest"
    settled = {
        number: _settle_notebook(source, given, latest, root) for number, source in sources.items()
    }
    parameters = settle(given, {}, latest, root, "command line")
    _check_declared(explicit, sources, selection)
    out = parameters.out
    if out.is_relative_to(parameters.data):
        raise WorkbookError(
            f"--out {out} lies inside the data folder {parameters.data}; choose another place"
        )
    data, package = hash_data(parameters.data), hash_source()
    refuse_foreign(out)
    subject = _inspect(addresses) if addresses else {"hash": ""}
    inputs = plan.Inputs(sources, settled, package, data["hash"], subject["hash"])
    warnings = [] if only is None else check_upstream(inputs, selection, given, out)
    kept = keep_previous(out) if only is None and not resume else None
    if kept is not None:
        console.say(f"the previous run is kept in {kept}")
    with _open(out) as folder, _signals_interrupt():
        record = Record(folder, parameters, given, selection, resume, data, package, subject)
        record.content["jobs"] = jobs
        record.content["threads"] = (
            threads_of(parameters.threads, jobs) or record.content["threads"]
        )
        run = _Run(inputs, selection, folder, record, console, resume, write_report, jobs)
        for warning in warnings:
            run.warn(warning)
        return run.go()


def _settle_notebook(
    source: plan.Source, given: Mapping[str, Any], latest: Path, root: Path
) -> Parameters:
    """Every notebook of a run has the same data, run folder and subject, whatever its cell says for
    JupyterLab.
    """
    of_the_run = dict.fromkeys(("data", "out", "subject", "subjects"))
    return settle(given, {**source.declared, **of_the_run}, latest, root, str(source.path))


def both_names(given: Mapping[str, Any]) -> dict[str, Any]:
    """`given` with `subject` and `subjects` saying the same: one address is a list of one."""
    found = dict(given)
    if found.get("subject") and not found.get("subjects"):
        found["subjects"] = found["subject"]
    addresses = addresses_of(found)
    if len(addresses) == 1 and found["subjects"] == addresses[0]:
        found["subject"] = addresses[0]
    return found


def addresses_of(given: Mapping[str, Any]) -> list[str]:
    """The models of the user's among what is studied; the others are presets."""
    names = (given.get("subjects") or "").split(",")
    return [name for name in names if name and name not in PRESETS]


def takers_of_subjects(sources: Mapping[str, plan.Source]) -> list[str]:
    """The notebooks that can study a model of the user's."""
    one, several = (plan.takers_of(name, sources) for name in ("subject", "subjects"))
    return [number for number in sources if number in one or number in several]


def _open(out: Path) -> RunFolder:
    try:
        return RunFolder(out)
    except OSError as error:
        raise WorkbookError(
            f"the run folder {out} cannot be written ({error}). Make room, or choose another --out."
        ) from None


def _check_declared(
    explicit: Mapping[str, Any], sources: Mapping[str, plan.Source], selection: list[str]
) -> None:
    """A parameter that no notebook of this run takes would be ignored in silence."""
    reached = set(selection)
    for number in selection:
        reached.update(plan.upstream_of(number, sources))
    for name, value in explicit.items():
        if value is None or value == "" or name in ("data", "out"):
            continue
        takers = plan.takers_of(name, sources)
        if name in ("subject", "subjects"):
            takers = takers_of_subjects(sources)
        if not reached & set(takers):
            others = f"; {', '.join(takers)} would" if takers else ""
            raise WorkbookError(
                f"{name} = {value!r}: none of the notebooks {', '.join(selection)} takes this"
                f" parameter{others}"
            )


def _with_subject(
    explicit: Mapping[str, Any],
    sources: Mapping[str, plan.Source],
    selection: list[str] | None,
    alone: bool,
) -> list[str]:
    """The notebooks that study a subject: all that take one, or those of `selection`, none of which
    may lack it. `alone`: nothing is studied beside it.
    """
    takers = takers_of_subjects(sources) if alone else plan.takers_of("subjects", sources)
    lacking = [number for number in selection or () if number not in takers]
    if lacking or not takers:
        raise WorkbookError(
            f"subject: notebook {', '.join(lacking or sources)} cannot study a model of yours;"
            f" these can: {', '.join(takers) or 'none'}. Name them with --only, or leave --only out"
        )
    for name, field in FIELDS.items():
        if alone and field.of_presets and explicit.get(name) not in (None, ""):
            raise WorkbookError(
                f"{name} = {explicit[name]!r} does not reach a subject, which brings its own batch,"
                " losses, optimiser and precision; leave it out, or change it in the subject"
            )
    return selection or takers


def _inspect(addresses: list[str]) -> dict[str, Any]:
    # loads torch, which a run of the presets leaves to its kernels
    from tts_workbook.subject.loading import inspect_subjects

    return inspect_subjects(addresses)


class _Run:
    """One call of `run_notebooks`, after everything was checked that can be checked without
    running.
    """

    def __init__(
        self,
        inputs: plan.Inputs,
        selection: list[str],
        folder: RunFolder,
        record: Record,
        console: Console,
        resume: bool,
        write_report: Callable[[Path], Path],
        jobs: int,
    ) -> None:
        self.jobs, self.messages = jobs, Messages()
        self.running: dict[str, NotebookAttempt] = {}  # by number
        self.inputs, self.selection = inputs, selection
        self.folder, self.record, self.console = folder, record, console
        self.resume, self.write_report = resume, write_report

    def warn(self, text: str) -> None:
        """Into the record and, at once, to the reader."""
        self.record.content["warnings"].append(text)
        self.console.say(f"note: {text}")

    def go(self) -> RunResult:
        """Run the selected notebooks, whatever happens leave a record that says so."""
        try:
            self._begin()
            failed = self._execute()
            if failed is not None:
                number, fault = failed
                return self._stop("failed", number, fault.cause)
            for other, changed in find_stale(self.inputs, self.folder.path).items():
                self.record.notebook(other, self._name(other), status="stale", changed=changed)
            self.record.finish("complete")
            return self._result("complete")
        except KeyboardInterrupt as interrupt:
            cause = f"interrupted by {interrupt or 'Ctrl-C'}"
            return self._stop("interrupted", self._first_running(), cause)
        except OSError as error:
            cause = f"the runner itself was stopped: {error}"
            return self._stop("failed", self._first_running(), cause)
        except Exception as error:
            cause = f"a defect in the runner: {type(error).__name__}: {error}"
            self._stop("failed", self._first_running(), cause)
            raise

    def _execute(self) -> tuple[str, ExecutionFault] | None:
        """Execute what is selected, up to `jobs` notebooks side by side; the first that fails ends
        the others. Returns its number and fault, or None.

        All happens in this thread: an interrupt arrives here, and leaving `processes` ends every
        child and kernel before it goes on its way.
        """
        waiting = list(self.selection)
        with ExitStack() as processes:
            while waiting or self.running:
                number = self._startable(waiting)
                if number is not None:
                    waiting.remove(number)
                    self._start(number, processes)
                failed = self._listen()
                if failed is not None:
                    return failed
        return None

    def _startable(self, waiting: list[str]) -> str | None:
        """The next notebook, if there is a place for it and what it reads is there."""
        if len(self.running) >= self.jobs:
            return None
        unfinished = {*waiting, *self.running}
        for number in waiting:
            if not unfinished & set(plan.upstream_of(number, self.inputs.sources)):
                return number
        return None

    def _listen(self) -> tuple[str, ExecutionFault] | None:
        """Take one message of what runs, if one comes soon; what ended is judged."""
        if not self.running:
            return None
        try:
            number, event = self.messages.get(timeout=TICK)
        except queue.Empty:
            self.console.tick()
            return None
        if event is not None:
            self.running[number].event(event)
            return None
        fault = self.running[number].finish()
        del self.running[number]
        return None if fault is None else (number, fault)

    def _first_running(self) -> str | None:
        return next(iter(self.running), None)

    def _name(self, number: str) -> str:
        return self.inputs.sources[number].name

    def _begin(self) -> None:
        # an older report must not stand for this run
        self.folder.report.unlink(missing_ok=True)
        for number in self.inputs.sources:
            self._set_renumbered_aside(number)
        done = usable(self.folder.path, self.inputs.sources)
        for number, source in self.inputs.sources.items():
            if number in self.selection:
                self.record.notebook(number, source.name, status="waiting", seconds=None)
            elif number in done:
                self._note_done_earlier(number, done[number])
        self.record.save()

    def _set_renumbered_aside(self, number: str) -> None:
        """A result of a notebook that had this number before would pass for this one's."""
        state = self.folder.state(number)
        if state is not None and state.name != self._name(number):
            self.folder.clear(number)
            self.warn(
                f"{self._name(number)}: {renumbered(state, self._name(number))}; it does not count"
                " any more and is kept in superseded/"
            )

    def _note_done_earlier(self, number: str, state: NotebookState) -> None:
        self.record.notebook(
            number,
            self._name(number),
            status="done earlier",
            seconds=state.seconds,
            key=state.key,
        )

    def _start(self, number: str, processes: ExitStack) -> None:
        """Start one notebook, or find it done."""
        source = self.inputs.sources[number]
        parts = self.inputs.parts(number, self._upstream_keys(number))
        state = self.folder.state(number)
        if self.resume and state is not None and self._is_done(number, state, parts):
            self._note_done_earlier(number, state)
            self.console.say(
                f"{source.name}: done already, with the same cells, parameters, package, data,"
                " upstream"
            )
            return
        settled = self.inputs.settled[number]
        attempt = NotebookAttempt(
            source, settled, parts, self.folder, self.record, self.console, self.messages
        )
        self.running[number] = attempt
        processes.enter_context(attempt)
        attempt.start(threads_of(settled.threads, self.jobs))

    def _upstream_keys(self, number: str) -> dict[str, str]:
        keys = {}
        done = usable(self.folder.path, self.inputs.sources)
        for other in plan.upstream_of(number, done):
            state = self.folder.state(other)
            if state is not None:
                keys[other] = state.key
        return keys

    def _is_done(self, number: str, state: NotebookState, parts: dict[str, Any]) -> bool:
        same_key = state.key == plan.key_of(parts)
        changed = [] if same_key else plan.changed_parts(state.parts, parts)
        if changed:
            reason: str | None = f"changed: {', '.join(changed)}"
        else:
            reason = find_defect(self.folder.path, number, self._name(number))
        if reason is not None:
            self.console.say(f"{self._name(number)}: runs again, {reason}")
        return reason is None

    def _stop(self, status: str, number: str | None, cause: str) -> RunResult:
        """Say what happened, in run.json and aloud; leave nothing cut short that could pass for a
        result. `number` is the notebook that it happened to; what ran beside it was ended.
        """
        name = None if number is None else self._name(number)
        entry: dict[str, Any] = {}
        if number is not None:
            entry = self.record.content["notebooks"].get(number, {})
            self._drop_unfinished(number, status, cause)
        for other in self.running:
            if other != number:
                self._drop_unfinished(other, "interrupted", f"ended with {name}: {cause}")
        self.record.content["failure"] = {
            "notebook": number,
            "name": name,
            "cell": entry.get("cell"),
            "cause": cause,
        }
        try:
            self.record.finish(status)
        # run.json then still says running, with the id of a process that is gone
        except OSError as error:
            self.console.say(f"run.json could not be written: {error}")
        self.console.say(f"{status.upper()}: {name or 'the run'}: {cause}")
        return self._result(status)

    def _drop_unfinished(self, number: str, status: str, cause: str) -> None:
        """Verdict and notebook of an execution that did not come to count."""
        if self.folder.state(number) is not None:
            return
        self.folder.verdict(number).unlink(missing_ok=True)
        self.folder.notebook(self._name(number)).unlink(missing_ok=True)
        entry = self.record.content["notebooks"].get(number, {})
        if entry.get("status") != "failed":
            entry.update(status=status, cause=cause)

    def _result(self, status: str) -> RunResult:
        self.folder.free_reserve()
        try:
            report = self.write_report(self.folder.path)
        except (OSError, WorkbookError) as error:
            self.console.say(f"no report: {error}")
            return RunResult(status, EXIT_CODES[status] or 1, self.folder.path, None)
        return RunResult(status, EXIT_CODES[status], self.folder.path, report)


def threads_of(given: int | None, jobs: int) -> int | None:
    """Threads of a notebook's computing: as given; None, torch's own choice, where it runs alone;
    else its share of the processors.
    """
    if given is not None or jobs == 1:
        return given
    from tts_workbook.trials.executors import processors  # loads torch: only who needs it waits

    return max(1, processors() // jobs)


@contextmanager
def _signals_interrupt() -> Iterator[None]:
    """SIGINT, SIGTERM and SIGHUP raise one KeyboardInterrupt; later ones are ignored while the run
    is being closed.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

    def interrupt(number: int, frame: Any) -> None:
        for other in numbers:
            signal.signal(other, signal.SIG_IGN)
        raise KeyboardInterrupt(signal.Signals(number).name)

    before = {number: signal.signal(number, interrupt) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
