"""The command `tts-workbook`: run, diagnose, triage, check, align, report.

Exit codes: 0 done (a diagnosis that finds faults is done), 1 a notebook failed (or no clip is
usable), 2 something the user can mend (a message, no traceback), 130 interrupted.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from tts_core.errors import WorkbookError
from tts_workbook.runner.parameters import FIELDS, read_assignments

if TYPE_CHECKING:
    from tts_workbook.diagnosis.triage import Triage

    Commands = argparse._SubParsersAction[argparse.ArgumentParser]

MOST_JOBS = 2  # notebooks side by side where nothing else is said
FAILED_ON = 3  # exit status of `diagnose --fail-on`


def build_parser() -> argparse.ArgumentParser:
    """The commands and their options."""
    parser = argparse.ArgumentParser(
        prog="tts-workbook",
        description="Why does a text-to-speech model not learn to speak?",
        allow_abbrev=False,
    )
    commands = parser.add_subparsers(
        dest="command", required=True, metavar="run | diagnose | triage | check | align | report"
    )
    _add_run(commands)
    _add_diagnose(commands)
    triage = commands.add_parser(
        "triage",
        help="what does my trained model do on one clip? within a minute",
        description=(
            "Teacher-forced, free-running and full inference of a checkpoint, beside baselines."
        ),
    )
    _add_subject(triage)

    check = commands.add_parser("check", help="report on the clips of a data folder")
    check.add_argument(
        "folder", type=Path, metavar="DIR", help="LJSpeech layout: metadata.csv, wavs/, alignments/"
    )
    check.add_argument("--language", default="auto", help=FIELDS["language"].help)

    align = commands.add_parser("align", help="make TextGrids for English clips that have none")
    align.add_argument("folder", type=Path, metavar="DIR")
    align.add_argument(
        "--overwrite", action="store_true", help="also replace TextGrids that are there"
    )

    report = commands.add_parser("report", help="rebuild report.html of a run folder")
    report.add_argument("folder", type=Path, metavar="DIR")
    return parser


def _add_run(commands: Commands) -> None:
    """The options of the parameters come from their schema."""
    names = ", ".join(f"{field.name} ({field.help})" for field in FIELDS.values())
    run = commands.add_parser(
        "run",
        allow_abbrev=False,
        help="execute the notebooks and write report.html",
        description="Execute the notebooks in order and write report.html.",
        epilog=f"Parameters for -p, and for the environment as TTS_WORKBOOK_<NAME>: {names}.",
    )
    for field in FIELDS.values():
        if field.option:
            run.add_argument(f"--{field.name}", metavar=field.option, help=field.help)
    run.add_argument(
        "--only",
        metavar="03,07",
        help="run only these notebooks, in order, in the run folder as it is",
    )
    run.add_argument(
        "-p",
        dest="parameters",
        metavar="name=value",
        action="append",
        default=[],
        help="any parameter; repeatable",
    )
    run.add_argument(
        "--resume",
        action="store_true",
        help=(
            "continue in the run folder, skipping what is done with the same cells, parameters,"
            " package, data and upstream"
        ),
    )
    run.add_argument(
        "--jobs",
        metavar="N",
        type=int,
        help="notebooks side by side; default: 2 where there are two processors, else 1",
    )
    run.add_argument(
        "--notebooks",
        metavar="DIR",
        type=Path,
        help="folder of the notebooks; default: notebooks/ of the checkout",
    )


def _add_diagnose(commands: Commands) -> None:
    diagnose = commands.add_parser(
        "diagnose",
        help="why does my model not learn? findings by intervention",
        description="Run every check on a Subject and rank what they find.",
    )
    _add_subject(diagnose)
    diagnose.add_argument(
        "--budget",
        choices=("fast", "full"),
        default="fast",
        help="fast: minutes for a few million parameters; full: longer runs. Both count steps,"
        " not seconds",
    )
    diagnose.add_argument("--seed", type=int, default=0, help="of weights and data order")
    diagnose.add_argument(
        "--steps", type=int, metavar="N", help="of each training run, whatever the budget has"
    )
    diagnose.add_argument(
        "--minutes",
        type=float,
        metavar="M",
        help="stop after that time; the report says what it could not examine",
    )
    diagnose.add_argument(
        "--threads", type=int, metavar="N", help="of torch; default: as torch chooses"
    )
    diagnose.add_argument(
        "--only",
        metavar="CAUSE,…",
        default="",
        help="examine these causes alone: ids as in a report, or areas (data, model, loss, …)",
    )
    diagnose.add_argument(
        "--fail-on",
        choices=("confirmed", "suspected"),
        help=f"exit with {FAILED_ON} where a finding of that level, or a surer one, is made",
    )


def _add_subject(command: argparse.ArgumentParser) -> None:
    """The subject's address and what comes out: shared by diagnose and triage."""
    command.add_argument(
        "subject",
        metavar="pkg.module:subject",
        help="a Subject, or a function that returns one; file.py:name too",
    )
    command.add_argument(
        "--checkpoint", metavar="FILE", help="safetensors, in place of the subject's own"
    )
    command.add_argument("--json", action="store_true", help="print the whole result as JSON")
    command.add_argument(
        "--html", metavar="OUT", type=Path, help="write it as a self-contained page"
    )


def main(arguments: list[str] | None = None) -> int:
    """Run one command; returns the exit status. A WorkbookError is printed without a traceback."""
    options = build_parser().parse_args(arguments)
    commands = {
        "run": _run,
        "diagnose": _diagnose,
        "triage": _triage,
        "check": _check,
        "align": _align,
        "report": _report,
    }
    try:
        return commands[options.command](options)
    except WorkbookError as error:
        print(f"tts-workbook: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("tts-workbook: interrupted", file=sys.stderr)
        return 130


def _explicit(options: argparse.Namespace) -> dict[str, str]:
    """Parameter name -> text, of -p and of the parameters' own options."""
    explicit = read_assignments(options.parameters)
    for name, field in FIELDS.items():
        value = getattr(options, name) if field.option else None
        if not value:
            continue
        if explicit.get(name, value) != value:
            raise WorkbookError(
                f"--{name} {value} and -p {name}={explicit[name]} contradict each other; keep one"
            )
        explicit[name] = value
    return explicit


def _run(options: argparse.Namespace) -> int:
    explicit = _explicit(options)
    try:
        from tts_workbook.pages.run_report import verdict_rows, write_report
        from tts_workbook.runner.console import Console, verdict_table
        from tts_workbook.runner.run_notebooks import run_notebooks
        from tts_workbook.trials.executors import processors
    except ModuleNotFoundError as error:
        raise _not_installed(error) from None
    console = Console()
    result = run_notebooks(
        explicit,
        write_report,
        only=options.only,
        resume=options.resume,
        notebooks_dir=options.notebooks,
        console=console,
        jobs=min(MOST_JOBS, processors()) if options.jobs is None else options.jobs,
    )
    console.say(f"\n{verdict_table(verdict_rows(result.out))}\n")
    if result.exit_code:
        print(
            f"The run is {result.status.upper()}. Mend the cause and continue with the same command"
            f" and --resume; what happened is in {result.out / 'run.json'}",
            file=sys.stderr,
        )
    if result.report is None:
        console.say(f"no report could be written in {result.out}")
    else:
        console.say(str(result.report))
    return result.exit_code


def _diagnose(options: argparse.Namespace) -> int:
    from tts_workbook.diagnosis.diagnose import INTERRUPTED, chosen_causes, diagnose
    from tts_workbook.subject.loading import load_subject

    only = [name.strip() for name in options.only.split(",") if name.strip()]
    chosen_causes(only)  # a misspelt one is said before anything is built
    _set_threads(options.threads)
    subject = load_subject(options.subject, options.checkpoint)
    report = diagnose(
        subject,
        options.budget,
        options.seed,
        on_progress=lambda line: print(line, file=sys.stderr, flush=True),
        steps=options.steps,
        minutes=options.minutes,
        only=only,
    )
    print(json.dumps(report.to_dict(), indent=1, ensure_ascii=False) if options.json else report)
    if options.html is not None:
        pages = _diagnosis_pages()
        title = f"Diagnosis of {options.subject}"
        _write_page(options.html, pages.diagnosis_page(report, title))
    if report.cut == INTERRUPTED:
        return 130
    fails = {
        "confirmed": report.at("confirmed"),
        "suspected": report.findings,
        None: [],
    }
    return FAILED_ON if fails[options.fail_on] else 0


def _set_threads(wanted: int | None) -> None:
    if wanted is None:
        return
    if wanted < 1:
        raise WorkbookError(f"--threads {wanted}: wanted 1 or more")
    import torch

    torch.set_num_threads(wanted)


def _triage(options: argparse.Namespace) -> int:
    from tts_workbook.diagnosis.triage import triage
    from tts_workbook.subject.loading import load_subject

    found = triage(load_subject(options.subject, options.checkpoint))
    if options.json:
        print(json.dumps(found.to_dict(), indent=1, ensure_ascii=False))
    else:
        print(_triage_text(found))
    if options.html is not None:
        pages = _diagnosis_pages()
        _write_page(options.html, pages.triage_page(found, f"Triage of {options.subject}"))
    return 0


def _triage_text(found: Triage) -> str:
    width = max(len(name) for name in found.headline)
    lines = [f"{name:<{width}}  {value:.4g}" for name, value in found.headline.items()]
    lines += [f"{name}: {reason}" for name, reason in found.missing.items()]
    return "\n".join([*lines, found.advice])


def _diagnosis_pages() -> ModuleType:
    try:
        from tts_workbook.pages import diagnosis_page
    except ModuleNotFoundError as error:
        raise _not_installed(error) from None
    return diagnosis_page


def _write_page(target: Path, page: str) -> None:
    """Write the page; its path goes to stderr, so that --json stays JSON."""
    from tts_core import atomic_files

    atomic_files.write_text(target, page)
    print(target, file=sys.stderr)


def _check(options: argparse.Namespace) -> int:
    from tts_core.config import AudioConfig
    from tts_workbook.corpus.data_report import check_corpus

    report = check_corpus(options.folder, AudioConfig(), language=options.language)
    print(report.to_text())
    return 0 if report.rows else 1


def _align(options: argparse.Namespace) -> int:
    from tts_workbook.corpus.forced_alignment import align_folder

    results = align_folder(options.folder, overwrite=options.overwrite)
    for result in results:
        outcome = f": {result.reason}" if result.reason else f"  {result.path}"
        print(f"{result.status:<8} {result.id}{outcome}")
    return 0 if any(result.status != "failed" for result in results) else 1


def _report(options: argparse.Namespace) -> int:
    try:
        from tts_workbook.pages.run_report import write_report
    except ModuleNotFoundError as error:
        raise _not_installed(error) from None
    print(write_report(options.folder))
    return 0


def _not_installed(error: ModuleNotFoundError) -> WorkbookError:
    return WorkbookError(
        f"this needs {error.name}; install it with: pip install 'tts-overfit-workbook[notebooks]'"
    )


if __name__ == "__main__":
    sys.exit(main())
