"""The command `tts-workbook`: run, diagnose, triage, check, align, report.

Exit codes: 0 done (a diagnosis that finds faults is done), 1 a notebook failed (or no clip is
usable), 2 something the user can mend (a message, no traceback), 130 interrupted.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from tts_core.errors import WorkbookError
from tts_workbook.runner.parameters import EXECUTORS, FIELDS, PROFILES, read_assignments


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

    names = ", ".join(f"{field.name} ({field.help})" for field in FIELDS.values())
    run = commands.add_parser(
        "run",
        allow_abbrev=False,
        help="execute the notebooks and write report.html",
        description="Execute the notebooks in order and write report.html.",
        epilog=f"Parameters for -p, and for the environment as TTS_WORKBOOK_<NAME>: {names}.",
    )
    run.add_argument("--profile", metavar="|".join(PROFILES), help=FIELDS["profile"].help)
    run.add_argument("--data", metavar="DIR", help=FIELDS["data"].help)
    run.add_argument("--clip", metavar="ID", help=FIELDS["clip"].help)
    run.add_argument("--out", metavar="DIR", help=FIELDS["out"].help)
    run.add_argument(
        "--subject",
        metavar="pkg.module:name",
        help=(
            "your own model, package.module:name or file.py:name: runs the "
            "notebooks that can study it (02-05 and 07) on it"
        ),
    )
    run.add_argument("--executor", metavar="|".join(EXECUTORS), help=FIELDS["executor"].help)
    run.add_argument("--scheduler", metavar="ADDRESS", help=FIELDS["scheduler"].help)
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
        "--notebooks",
        metavar="DIR",
        type=Path,
        help="folder of the notebooks; default: notebooks/ of the checkout",
    )

    diagnose = commands.add_parser(
        "diagnose",
        help="why does my model not learn? findings by intervention",
        description="Run every check on a Subject and rank what they find.",
    )
    add_subject(diagnose)
    diagnose.add_argument(
        "--budget",
        choices=("fast", "full"),
        default="fast",
        help="fast: about two minutes; full: longer runs",
    )
    diagnose.add_argument("--seed", type=int, default=0, help="of weights and data order")

    triage = commands.add_parser(
        "triage",
        help="what does my trained model do on one clip? within a minute",
        description=(
            "Teacher-forced, free-running and full inference of a checkpoint, beside baselines."
        ),
    )
    add_subject(triage)

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


def add_subject(command: argparse.ArgumentParser) -> None:
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
    try:
        return {
            "run": _run,
            "diagnose": _diagnose,
            "triage": _triage,
            "check": _check,
            "align": _align,
            "report": _report,
        }[options.command](options)
    except WorkbookError as error:
        print(f"tts-workbook: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("tts-workbook: interrupted", file=sys.stderr)
        return 130


def _run(options: argparse.Namespace) -> int:
    explicit = read_assignments(options.parameters)
    for name in ("profile", "data", "clip", "out", "subject", "executor", "scheduler"):
        value = getattr(options, name)
        if value and explicit.get(name, value) != value:
            raise WorkbookError(
                f"--{name} {value} and -p {name}={explicit[name]} contradict each other; keep one"
            )
        if value:
            explicit[name] = value
    try:
        from tts_workbook.pages import report
        from tts_workbook.runner import runner
        from tts_workbook.runner.console import Console, verdict_table
    except ModuleNotFoundError as error:
        raise _not_installed(error) from None
    console = Console()
    result = runner.run(
        explicit,
        only=options.only,
        resume=options.resume,
        notebooks_dir=options.notebooks,
        console=console,
    )
    console.say(f"\n{verdict_table(report.verdict_rows(result.out))}\n")
    if result.exit_code:
        print(
            f"The run is {result.status.upper()}. Mend the cause and continue with the same command"
            f" and --resume; what happened is in {result.out / 'run.json'}",
            file=sys.stderr,
        )
    console.say(
        str(result.report)
        if result.report is not None
        else f"no report could be written in {result.out}"
    )
    return result.exit_code


def _diagnose(options: argparse.Namespace) -> int:
    from tts_workbook.diagnosis.diagnose import diagnose
    from tts_workbook.subject.loading import load_subject

    subject = load_subject(options.subject, options.checkpoint)
    report = diagnose(
        subject,
        options.budget,
        options.seed,
        on_progress=lambda line: print(line, file=sys.stderr, flush=True),
    )
    print(json.dumps(report.to_dict(), indent=1, ensure_ascii=False) if options.json else report)
    return _write_page(options.html, "diagnosis_page", report, f"Diagnosis of {options.subject}")


def _triage(options: argparse.Namespace) -> int:
    from tts_workbook.diagnosis.triage import triage
    from tts_workbook.subject.loading import load_subject

    found = triage(load_subject(options.subject, options.checkpoint))
    if options.json:
        print(json.dumps(found.to_dict(), indent=1, ensure_ascii=False))
    else:
        width = max(map(len, found.headline))
        lines = [f"{name:<{width}}  {value:.4g}" for name, value in found.headline.items()]
        print(
            "\n".join(
                [
                    *lines,
                    *(f"{name}: {reason}" for name, reason in found.missing.items()),
                    found.advice,
                ]
            )
        )
    return _write_page(options.html, "triage_page", found, f"Triage of {options.subject}")


def _write_page(target: Path | None, maker: str, found, title: str) -> int:
    """Write the page where one is asked for; its path goes to stderr, so that --json stays JSON."""
    if target is None:
        return 0
    try:
        from tts_workbook.pages import diagnosis_page
    except ModuleNotFoundError as error:
        raise _not_installed(error) from None
    from tts_core import atomic_files

    atomic_files.write_text(target, getattr(diagnosis_page, maker)(found, title))
    print(target, file=sys.stderr)
    return 0


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
        print(
            f"{result.status:<8} {result.id}"
            + (f": {result.reason}" if result.reason else f"  {result.path}")
        )
    return 0 if any(result.status != "failed" for result in results) else 1


def _report(options: argparse.Namespace) -> int:
    try:
        from tts_workbook.pages import report
    except ModuleNotFoundError as error:
        raise _not_installed(error) from None
    print(report.build(options.folder))
    return 0


def _not_installed(error: ModuleNotFoundError) -> WorkbookError:
    return WorkbookError(
        f"this needs {error.name}; install it with: pip install 'tts-overfit-workbook[notebooks]'"
    )


if __name__ == "__main__":
    sys.exit(main())
