"""Run the planted-fault benchmark of the diagnosis and record it: a night on 2 cores, resumable;
`--smoke` minutes.

    python benchmarks/diagnosis.py [--smoke] [--seeds 0,1,2,3] [--kinds fault,clean,outside,pair,…]
    [--architectures ours,…]

Every cell runs in a one-thread worker and is stored the moment it ends (runs/diagnosis); a kill
loses what was running. What is stored, there or in the recorded result, counts as long as the
source of the diagnosis is the same; `--keep` takes older cells too and says how many. `--record`
runs nothing and records what is there. Results: benchmarks/results/diagnosis.json, and the same as
a page beside it.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import functools
import hashlib
import io
import math
import multiprocessing
import os
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.planted.architecture import Architecture
from benchmarks.planted.cells import KINDS, build, cells, setting_of
from benchmarks.planted.harm import against_twin, harm
from benchmarks.planted.known_architectures import held_out_architectures, known_architectures
from benchmarks.planted.page import benchmark_page
from benchmarks.planted.signs import signs
from benchmarks.timing import processor
from tts_core import atomic_files
from tts_core.environment import git_commit, versions
from tts_workbook.diagnosis.benchmark_scores import Cell, Row, score
from tts_workbook.diagnosis.diagnose import investigate
from tts_workbook.diagnosis.diagnosis_report import Report
from tts_workbook.faults.planting import Setting
from tts_workbook.lab.lab import Lab
from tts_workbook.pages.benchmark_record import as_benchmark
from tts_workbook.subject.isolation import private_copy, unchanged_randomness
from tts_workbook.subject.subject import Subject
from tts_workbook.subject.tensor_math import tensors_norm

STORE = ROOT / "runs" / "diagnosis"
RESULT = ROOT / "benchmarks" / "results" / "diagnosis.json"
SMOKE_STEPS = 64  # of a training run there
CELLS_PER_PROCESS = 12
OWN = threading.local()
# the rooms that a diagnosis is made of
ROOMS = ("diagnosis", "faults", "lab", "measure", "subject")
# of these rooms: for notebooks and the command line, no part of a diagnosis
BESIDE = ("module_audit.py", "triage.py")
# bounds on the gradient norm of the first step that a watch raises an alarm beyond
GRADIENT_NORM = (1e-6, 100.0)
SMOKE_ARCHITECTURES = ("ours", "tacotron2")
SMOKE_FAULTS = (
    "data.token_collapse",
    "model.no_causal_mask",
    "model.text_ignored",
    "loss.padding_included",
    "loss.detached",
    "optimizer.missing_parameters",
    "loop.no_zero_grad",
    "generation.layout",
)


# --- what is known already ------------------------------------------------------------------------


@functools.cache
def source() -> str:
    """Hash of what a cell depends on: the diagnosis, what it stands on, and the architectures that
    live beside its tests.
    """
    folders = [ROOT / "tts_core", ROOT / "benchmarks" / "planted"]
    folders += [ROOT / "tts_workbook" / room for room in ROOMS]
    files: list[Path] = []
    for folder in folders:
        files += [file for file in folder.rglob("*.py") if file.name not in BESIDE]
    for written in ("vits_like_*.py", "token_lm_*.py"):
        files += (ROOT / "tests" / "tts_workbook" / "diagnosis").glob(written)
    contents = [
        f"{file.relative_to(ROOT)}\0{file.read_text(encoding='utf-8')}" for file in sorted(files)
    ]
    return hashlib.sha256("\0".join(contents).encode()).hexdigest()


def known_rows(wanted: list[Cell], recorded: Path, keep: bool) -> tuple[dict[Cell, Row], int]:
    """What the store holds of these cells, then what the recorded result holds; and how many come
    of an older source.
    """
    kept = {path.stem: atomic_files.read_json(path) for path in STORE.glob("*.json")}
    for name, entry in recorded_entries(recorded).items():
        kept.setdefault(name, entry)
    rows: dict[Cell, Row] = {}
    older = 0
    for cell in wanted:
        if cell.name not in kept:
            continue
        entry = kept[cell.name]
        current = entry.get("source") == source()
        if current or keep:
            rows[cell] = Row.from_dict(entry["row"])
            older += not current
    return rows, older


def recorded_entries(path: Path) -> dict[str, dict[str, Any]]:
    """Name of a cell -> its row in a recorded result and the source that made it, as in the
    store.
    """
    if not path.exists():
        return {}
    record = atomic_files.read_json(path)
    made_by = record["provenance"]["source"]
    return {
        Row.from_dict(values).cell.name: {"source": made_by, "row": values}
        for values in record["rows"]
    }


# --- one cell -------------------------------------------------------------------------------------


def run_cell(cell: Cell, smoke: bool = False) -> tuple[Row, dict[str, Any]]:
    """Plant, diagnose, and measure what the plant spoils; the row, and the whole report for whoever
    asks why.
    """
    torch.set_num_threads(1)
    # failing models drift into denormal numbers, which cost three times the time
    torch.set_flush_denormal(True)
    architecture = known_architectures()[cell.architecture]
    subject = build(architecture, cell)
    setting = setting_of(architecture, cell)
    try:
        lab = Lab(subject, seed=cell.seed, steps=SMOKE_STEPS if smoke else architecture.steps)
        report = investigate(lab)
    except Exception as error:  # a diagnosis that breaks is a miss, and is to be seen as one
        return broken(cell, error), {}
    spoilt = ""
    if cell.kind not in ("clean", "sound"):
        shown = signs(lab) | against_twin(subject, architecture.clean(setting))
        spoilt = harm(shown, twin_signs(cell, setting, lab.n_steps))
    row = Row(
        cell=cell,
        confirmed=tuple(found.cause for found in report.at("confirmed")),
        suspected=tuple(found.cause for found in report.at("suspected")),
        questions=tuple(found.cause for found in report.at("question")),
        accepted=accepted(architecture, cell),
        healthy=report.healthy,
        passed=report.passed,
        headline=finite_numbers(report.headline),
        baselines=alarms(lab, report),
        harm=spoilt,
        seconds=report.seconds,
    )
    return row, report.to_dict()


def accepted(architecture: Architecture, cell: Cell) -> tuple[str, ...]:
    """Of a public thread: the causes of which any names it."""
    return architecture.threads[cell.fault].causes if cell.kind == "thread" else ()


def broken(cell: Cell, error: Exception) -> Row:
    """The row of a diagnosis that raised."""
    return Row(
        cell=cell,
        confirmed=(),
        suspected=(),
        healthy=False,
        passed=False,
        headline={},
        baselines={},
        harm="the diagnosis raised",
        seconds=0.0,
        error=f"{type(error).__name__}: {error}"[:400],
    )


def finite_numbers(headline: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of a headline that JSON holds."""
    numbers = {name: value for name, value in headline.items() if not isinstance(value, str)}
    return {name: value for name, value in numbers.items() if math.isfinite(value)}


def twin_signs(cell: Cell, setting: Setting, steps: int) -> dict[str, float]:
    """The signs of the clean twin of this setting, measured once and kept."""
    drawn = f"{setting.optimizer}-{setting.lr}-{setting.batch_size}"
    path = STORE / "twins" / f"{cell.architecture}-{cell.seed}-{drawn}-{steps}.json"
    if path.exists():
        kept = atomic_files.read_json(path)
        if kept["source"] == source():
            stored = kept["signs"]
            return {name: math.inf if value is None else value for name, value in stored.items()}
    architecture = known_architectures()[cell.architecture]
    found = signs(Lab(architecture.clean(setting), seed=cell.seed, steps=steps))
    # JSON holds no infinity
    storable = {name: value if math.isfinite(value) else None for name, value in found.items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic_files.write_json(path, {"source": source(), "signs": storable})
    return found


# --- baselines: they raise an alarm and name no cause ---------------------------------------------


def alarms(lab: Lab, report: Report) -> dict[str, bool]:
    """Each baseline that can be asked here, and whether it raises an alarm."""
    found = {
        "loss below half of the best constant": not report.passed,
        "gradient norm": gradient_alarm(lab),
    }
    torchtest = torchtest_alarm(lab.subject)
    if torchtest is not None:
        found["torchtest"] = torchtest
    return found


def gradient_alarm(lab: Lab) -> bool:
    """A watch on the gradient norm of the first step: not finite, above 100, or below 1e-6."""
    try:
        norm = tensors_norm(lab.gradient(lab.build()).values())
    except Exception:  # a watch that cannot even be asked is an alarm
        return True
    low, high = GRADIENT_NORM
    return not low <= norm <= high


def torchtest_alarm(subject: Subject) -> bool | None:
    """torchtest's own suite (variables change, no NaN, no infinity) around the subject; None where
    it is not installed.
    """
    try:
        from torchtest import torchtest
    except ImportError:
        return None

    with unchanged_randomness(0), contextlib.redirect_stdout(io.StringIO()):
        try:
            whole = AsTorchtestWants(subject)
            torchtest.test_suite(
                whole,
                lambda output, _: output.sum(),
                subject.make_optimizer(whole.inner),
                [torch.zeros(1), torch.zeros(1)],
                test_vars_change=True,
                test_nan_vals=True,
                test_inf_vals=True,
            )
        except Exception:  # torchtest raises what it finds
            return True
    return False


class AsTorchtestWants(torch.nn.Module):
    """The subject's model as torchtest wants one: called with a tensor, answering with one."""

    def __init__(self, subject: Subject) -> None:
        super().__init__()
        self.subject = subject
        self.inner = subject.build_model()

    def forward(self, _: torch.Tensor) -> torch.Tensor:
        terms = self.subject.losses(self.inner, private_copy(self.subject.batch))
        return terms["total"].reshape(1)


# --- the command ----------------------------------------------------------------------------------


def in_recycled_process(cell: Cell, smoke: bool) -> tuple[Row, dict[str, Any]]:
    """`run_cell` in this thread's own process, which is replaced every CELLS_PER_PROCESS cells, so
    that memory does not pile up.

    (`max_tasks_per_child` of ProcessPoolExecutor can leave a worker that has ended without a
    successor: CPython issue 115634.)
    """
    if getattr(OWN, "left", 0) == 0:
        if hasattr(OWN, "pool"):
            OWN.pool.shutdown()
        OWN.pool = ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn"))
        OWN.left = CELLS_PER_PROCESS
    OWN.left -= 1
    return OWN.pool.submit(run_cell, cell, smoke).result()


def parsed_options(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line, or these arguments."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--smoke",
        action="store_true",
        help=f"8 faults, seed 0, two architectures, runs of {SMOKE_STEPS} steps",
    )
    parser.add_argument("--seeds", default="0,1,2,3")
    parser.add_argument("--kinds", default=",".join(KINDS))
    parser.add_argument("--architectures", default=",".join(known_architectures()))
    parser.add_argument("--faults", default="", help="only these; default: all")
    parser.add_argument(
        "--one-in",
        type=int,
        default=1,
        metavar="N",
        help="a sample of the cells, drawn by the hash of their names, in that order",
    )
    parser.add_argument("--workers", type=int, default=min(2, os.cpu_count() or 1))
    parser.add_argument(
        "--keep", action="store_true", help="take cells that an older source of the package gave"
    )
    parser.add_argument(
        "--record", action="store_true", help="run nothing: score and record what is known"
    )
    parser.add_argument(
        "--out",
        type=Path,
        help=(
            "default: benchmarks/results/diagnosis.json; of --smoke"
            " runs/diagnosis/result/smoke.json"
        ),
    )
    options = parser.parse_args(arguments)
    if options.out is None:
        options.out = STORE / "result" / "smoke.json" if options.smoke else RESULT
    return options


def wanted_cells(options: argparse.Namespace) -> list[Cell]:
    """The cells that the command line asks for, in the order in which they run."""
    held_out = held_out_architectures()
    names = options.architectures.split(",")
    if options.smoke:
        names = [name for name in names if name in SMOKE_ARCHITECTURES]
        chosen = {name: known_architectures()[name] for name in names}
        wanted = cells(chosen, held_out, [0], ("fault", "clean"), n_clean=2)
        wanted = [cell for cell in wanted if cell.kind == "clean" or cell.fault in SMOKE_FAULTS]
    else:
        chosen = {name: known_architectures()[name] for name in names}
        seeds = [int(seed) for seed in options.seeds.split(",")]
        wanted = cells(chosen, held_out, seeds, options.kinds.split(","))
    if options.faults:
        wanted = [cell for cell in wanted if cell.fault in options.faults.split(",")]
    if options.one_in > 1:
        wanted = drawn(wanted, options.one_in)
    return wanted


def drawn(wanted: Sequence[Cell], one_in: int) -> list[Cell]:
    """A sample that is settled before anything runs, in an order in which an early stop leaves a
    sample too.
    """

    def lot(cell: Cell) -> int:
        return int.from_bytes(hashlib.sha256(cell.name.encode()).digest()[:8], "big")

    return sorted((cell for cell in wanted if lot(cell) % one_in == 0), key=lot)


def run_cells(wanted: Sequence[Cell], options: argparse.Namespace) -> Iterator[Row]:
    """Run these cells in parallel processes; each row is stored, unless it is of a smoke run, and
    given out the moment it is there.
    """
    STORE.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(options.workers) as threads:
        running = [threads.submit(in_recycled_process, cell, options.smoke) for cell in wanted]
        for future in as_completed(running):
            row, report = future.result()
            if not options.smoke:
                stored = {"source": source(), "row": row.to_dict(), "report": report}
                atomic_files.write_json(STORE / f"{row.cell.name}.json", stored)
            yield row


def log_line(row: Row) -> str:
    """One row as a line of the log."""
    said = row.error or row.first or ("healthy" if row.healthy else "cannot tell")
    masked = "" if row.harm or row.cell.kind == "clean" else " masked"
    return f"{row.cell.name}: {said} ({row.seconds:.0f} s){masked}"


def result_of(
    rows: Sequence[Row], options: argparse.Namespace, *, complete: bool, older: int, seconds: float
) -> dict[str, Any]:
    """What is recorded: rows, scores, and how they were made."""
    known_versions = versions()
    provenance = {
        "command": command_line(options),
        "commit": git_commit(ROOT),
        "device": f"cpu, {processor()}, {options.workers} one-thread workers",
        "date": datetime.date.today().isoformat(),
        "versions": {
            name: known_versions[name] for name in ("python", "torch", "torchaudio", "numpy")
        },
        "source": source(),
        "rows_of_an_older_source": older,
        "complete": complete,
        "seconds": round(seconds),
    }
    return {
        "provenance": provenance,
        "held_out": list(held_out_architectures()),
        "scores": score(rows),
        "rows": [row.to_dict() for row in rows],
    }


def command_line(options: argparse.Namespace) -> str:
    """What makes such a record again."""
    words = ["python benchmarks/diagnosis.py"]
    if options.smoke:
        words.append("--smoke")
    if options.one_in > 1:
        words.append(f"--seeds {options.seeds} --one-in {options.one_in}")
    return " ".join(words)


def write_page(result: dict[str, Any], path: Path) -> Path:
    """The result as a page beside its JSON: the numbers against their bars, the matrices, and every
    miss.
    """
    page = path.with_suffix(".html")
    atomic_files.write_text(page, benchmark_page(as_benchmark(result, str(path))))
    return page


def summary(scores: Mapping[str, Any], smoke: bool) -> str:
    """The last line of the log; empty where no harmful plant was run."""
    half = scores["tuning" if smoke else "scored"]
    if not half["n"]:
        return ""
    clean = scores["clean"]
    return (
        f"{half['n']} harmful plants: detection {half['detection']['value']:.3f}, root cause"
        f" {half['root_cause']['value']:.3f}, macro-F1 {half['macro_f1']['value']:.3f}; clean:"
        f" {clean['alarms']} alarms in {clean['n']} runs"
    )


def main() -> int:
    options = parsed_options()
    wanted = wanted_cells(options)
    rows: dict[Cell, Row] = {}
    older = 0
    if not options.smoke:
        rows, older = known_rows(wanted, options.out, options.keep)
    print(f"{len(wanted)} cells, {len(rows)} known, {older} of an older source", flush=True)
    started = time.perf_counter()
    missing = [] if options.record else [cell for cell in wanted if cell not in rows]
    for row in run_cells(missing, options):
        rows[row.cell] = row
        now = f"{datetime.datetime.now():%H:%M:%S}"
        print(f"{now} {len(rows)}/{len(wanted)} {log_line(row)}", flush=True)
    ordered = [rows[cell] for cell in wanted if cell in rows]
    result = result_of(
        ordered,
        options,
        complete=len(ordered) == len(wanted),
        older=older,
        seconds=time.perf_counter() - started,
    )
    options.out.parent.mkdir(parents=True, exist_ok=True)
    atomic_files.write_json(options.out, result)
    print(write_page(result, options.out), flush=True)
    if said := summary(result["scores"], options.smoke):
        print(said)
    return 0


if __name__ == "__main__":
    sys.exit(main())
