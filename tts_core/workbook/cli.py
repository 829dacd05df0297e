"""The command `tts-workbook`: run, check, align, report.

Exit codes: 0 done, 1 a notebook failed (or no clip is usable), 2 something the user can mend (a message, no traceback),
130 interrupted.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from tts_core.errors import WorkbookError
from tts_core.workbook.parameters import FIELDS, PROFILES, read_assignments


def build_parser() -> argparse.ArgumentParser:
    """The commands run, check, align and report with their options."""
    parser = argparse.ArgumentParser(prog="tts-workbook",
                                     description="Why does a text-to-speech model not learn to speak?",
                                     allow_abbrev=False)
    commands = parser.add_subparsers(dest="command", required=True, metavar="run | check | align | report")

    names = ", ".join(f"{field.name} ({field.help})" for field in FIELDS.values())
    run = commands.add_parser("run", allow_abbrev=False, help="execute the notebooks and write report.html",
                              description="Execute the notebooks in order and write report.html.",
                              epilog=f"Parameters for -p, and for the environment as TTS_WORKBOOK_<NAME>: {names}.")
    run.add_argument("--profile", metavar="|".join(PROFILES), help=FIELDS["profile"].help)
    run.add_argument("--data", metavar="DIR", help=FIELDS["data"].help)
    run.add_argument("--clip", metavar="ID", help=FIELDS["clip"].help)
    run.add_argument("--out", metavar="DIR", help=FIELDS["out"].help)
    run.add_argument("--only", metavar="03,07", help="run only these notebooks, in order, in the run folder as it is")
    run.add_argument("-p", dest="parameters", metavar="name=value", action="append", default=[],
                     help="any parameter; repeatable")
    run.add_argument("--resume", action="store_true",
                     help="continue in the run folder, skipping what is done with the same cells, parameters, package, "
                          "data and upstream")
    run.add_argument("--notebooks", metavar="DIR", type=Path,
                     help="folder of the notebooks; default: notebooks/ of the checkout")

    check = commands.add_parser("check", help="report on the clips of a data folder")
    check.add_argument("folder", type=Path, metavar="DIR", help="LJSpeech layout: metadata.csv, wavs/, alignments/")
    check.add_argument("--language", default="auto", help=FIELDS["language"].help)

    align = commands.add_parser("align", help="make TextGrids for English clips that have none")
    align.add_argument("folder", type=Path, metavar="DIR")
    align.add_argument("--overwrite", action="store_true", help="also replace TextGrids that are there")

    report = commands.add_parser("report", help="rebuild report.html of a run folder")
    report.add_argument("folder", type=Path, metavar="DIR")
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Run one command; returns the exit status. A WorkbookError is printed without a traceback."""
    options = build_parser().parse_args(arguments)
    try:
        return {"run": _run, "check": _check, "align": _align, "report": _report}[options.command](options)
    except WorkbookError as error:
        print(f"tts-workbook: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("tts-workbook: interrupted", file=sys.stderr)
        return 130


def _run(options: argparse.Namespace) -> int:
    explicit = read_assignments(options.parameters)
    for name in ("profile", "data", "clip", "out"):
        value = getattr(options, name)
        if value and explicit.get(name, value) != value:
            raise WorkbookError(f"--{name} {value} and -p {name}={explicit[name]} contradict each other; keep one")
        if value:
            explicit[name] = value
    try:
        from tts_core.workbook import report, runner
        from tts_core.workbook.console import Console, verdict_table
    except ModuleNotFoundError as error:
        raise _not_installed(error) from None
    console = Console()
    result = runner.run(explicit, only=options.only, resume=options.resume, notebooks_dir=options.notebooks,
                        console=console)
    console.say(f"\n{verdict_table(report.verdict_rows(result.out))}\n")
    if result.exit_code:
        print(f"The run is {result.status.upper()}. Mend the cause and continue with the same command and --resume; "
              f"what happened is in {result.out / 'run.json'}", file=sys.stderr)
    console.say(str(result.report) if result.report is not None else f"no report could be written in {result.out}")
    return result.exit_code


def _check(options: argparse.Namespace) -> int:
    from tts_core.config import AudioConfig
    from tts_core.probes.data_report import check_corpus
    report = check_corpus(options.folder, AudioConfig(), language=options.language)
    print(report.to_text())
    return 0 if report.rows else 1


def _align(options: argparse.Namespace) -> int:
    from tts_core.speech.alignment import align_folder
    results = align_folder(options.folder, overwrite=options.overwrite)
    for result in results:
        print(f"{result.status:<8} {result.id}" + (f": {result.reason}" if result.reason else f"  {result.path}"))
    return 0 if any(result.status != "failed" for result in results) else 1


def _report(options: argparse.Namespace) -> int:
    try:
        from tts_core.workbook import report
    except ModuleNotFoundError as error:
        raise _not_installed(error) from None
    print(report.build(options.folder))
    return 0


def _not_installed(error: ModuleNotFoundError) -> WorkbookError:
    return WorkbookError(f"this needs {error.name}; install it with: pip install 'tts-overfit-workbook[notebooks]'")


if __name__ == "__main__":
    sys.exit(main())
