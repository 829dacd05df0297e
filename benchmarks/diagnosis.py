"""Run the planted-fault benchmark of the diagnosis and record it: a night on 2 cores, resumable;
`--smoke` minutes.

    python benchmarks/diagnosis.py [--smoke] [--seeds 0,1,2,3] [--kinds fault,clean,outside,pair]
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
import importlib
import io
import math
import multiprocessing
import os
import sys
import threading
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor, as_completed
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.planted.cells import N_CLEAN, build, cells, setting_of
from benchmarks.timing import processor
from tts_core import atomic_files
from tts_core.environment import git_commit, versions
from tts_workbook.diagnosis.benchmark_scores import Cell, Row, score

STORE = ROOT / "runs" / "diagnosis"
RESULT = ROOT / "benchmarks" / "results" / "diagnosis.json"
ARCHITECTURES = {
    "ours": "benchmarks.planted.ours",
    "tacotron2": "benchmarks.planted.tacotron",
    "gru": "tests.tts_workbook.diagnosis.gru_plants",
}
HELD_OUT = ("gru",)
SMOKE_STEPS = 64  # of a training run there
CELLS_PER_PROCESS = 12
OWN = threading.local()
# of these rooms: for notebooks and the command line, no part of a diagnosis
BESIDE = ("module_audit.py", "triage.py")
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


def architecture(name: str):
    """The Architecture behind a name."""
    return importlib.import_module(ARCHITECTURES[name]).ARCHITECTURE


@functools.cache
def source() -> str:
    """Hash of what a cell depends on: the diagnosis, what it stands on, and the held-out
    architecture.
    """
    rooms = ("diagnosis", "faults", "lab", "measure", "subject")
    folders = [ROOT / "tts_core", ROOT / "benchmarks" / "planted"]
    folders += [ROOT / "tts_workbook" / room for room in rooms]
    files = [file for folder in folders for file in folder.rglob("*.py") if file.name not in BESIDE]
    files += (ROOT / "tests" / "tts_workbook" / "diagnosis").glob("gru_*.py")
    contents = [
        f"{file.relative_to(ROOT)}\0{file.read_text(encoding='utf-8')}" for file in sorted(files)
    ]
    return hashlib.sha256("\0".join(contents).encode()).hexdigest()


def known_rows(wanted: list[Cell], recorded: Path, keep: bool) -> tuple[dict[Cell, Row], int]:
    """What the store holds of these cells, then what the recorded result holds; and how many come
    of an older source.
    """
    kept = {path.stem: atomic_files.read_json(path) for path in STORE.glob("*.json")}
    if recorded.exists():
        before = atomic_files.read_json(recorded)
        for values in before["rows"]:
            kept.setdefault(
                Row.from_dict(values).cell.name,
                {"source": before["provenance"]["source"], "row": values},
            )
    now = {name: entry.get("source") == source() for name, entry in kept.items()}
    rows = {
        cell: Row.from_dict(kept[cell.name]["row"])
        for cell in wanted
        if cell.name in kept and (keep or now[cell.name])
    }
    return rows, sum(not now[cell.name] for cell in rows)


def run_cell(cell: Cell, smoke: bool = False) -> tuple[Row, dict]:
    """Plant, diagnose, and measure what the plant spoils; the row, and the whole report for whoever
    asks why.
    """
    import torch

    torch.set_num_threads(1)
    # failing models drift into denormal numbers, which cost three times the time
    torch.set_flush_denormal(True)
    from benchmarks.planted.harm import against_twin, harm, signs
    from tts_workbook.diagnosis.diagnose import investigate
    from tts_workbook.lab.lab import Lab

    kind = architecture(cell.architecture)
    subject, setting = build(kind, cell), setting_of(kind, cell)
    try:
        lab = Lab(subject, seed=cell.seed, steps=SMOKE_STEPS if smoke else kind.steps)
        report = investigate(lab)
    except Exception as error:  # a diagnosis that breaks is a miss, and is to be seen as one
        return (
            Row(
                cell,
                (),
                (),
                False,
                False,
                {},
                {},
                "the diagnosis raised",
                0.0,
                f"{type(error).__name__}: {error}"[:400],
            ),
            {},
        )
    names = tuple(
        tuple(found.cause for found in report.at(level)) for level in ("confirmed", "suspected")
    )
    spoilt = (
        ""
        if cell.kind == "clean"
        else harm(
            signs(lab) | against_twin(subject, kind.clean(setting)),
            twin_signs(cell, setting, lab.n_steps),
        )
    )
    numbers = {
        name: value
        for name, value in report.headline.items()
        if not isinstance(value, str) and math.isfinite(value)
    }
    alarms = {
        "loss below half of the best constant": not report.passed,
        "gradient norm": gradient_alarm(lab),
    }
    alarm = torchtest_alarm(subject)
    return (
        Row(
            cell,
            *names,
            report.healthy,
            report.passed,
            numbers,
            {**alarms, **({} if alarm is None else {"torchtest": alarm})},
            spoilt,
            report.seconds,
        ),
        report.to_dict(),
    )


def twin_signs(cell: Cell, setting, steps: int) -> dict[str, float]:
    """The signs of the clean twin of this setting, measured once and kept."""
    from benchmarks.planted.harm import signs
    from tts_workbook.lab.lab import Lab

    drawn = f"{setting.optimizer}-{setting.lr}-{setting.batch_size}"
    path = STORE / "twins" / f"{cell.architecture}-{cell.seed}-{drawn}-{steps}.json"
    if path.exists():
        kept = atomic_files.read_json(path)
        if kept["source"] == source():
            return {
                name: math.inf if value is None else value for name, value in kept["signs"].items()
            }
    kind = architecture(cell.architecture)
    found = signs(Lab(kind.clean(setting), seed=cell.seed, steps=steps))
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic_files.write_json(
        path,
        {
            "source": source(),
            "signs": {
                name: value if math.isfinite(value) else None for name, value in found.items()
            },
        },
    )
    return found


def gradient_alarm(lab) -> bool:
    """A watch on the gradient norm of the first step: not finite, above 100, or below 1e-6."""
    from tts_workbook.subject.tensor_math import tensors_norm

    try:
        norm = tensors_norm(lab.gradient(lab.build()).values())
    except Exception:  # a watch that cannot even be asked is an alarm
        return True
    return not math.isfinite(norm) or norm > 100.0 or norm < 1e-6


def torchtest_alarm(subject) -> bool | None:
    """torchtest's own suite (variables change, no NaN, no infinity) around the subject; None where
    it is not installed.
    """
    try:
        from torchtest import torchtest
    except ImportError:
        return None
    import torch

    from tts_workbook.subject.isolation import private_copy, unchanged_randomness

    class Whole(torch.nn.Module):
        """The subject's model as torchtest wants one: called with a tensor, answering with one."""

        def __init__(self) -> None:
            super().__init__()
            self.inner = subject.build_model()

        def forward(self, _):
            return subject.losses(self.inner, private_copy(subject.batch))["total"].reshape(1)

    with unchanged_randomness(0), contextlib.redirect_stdout(io.StringIO()):
        try:
            whole = Whole()
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


def in_recycled_process(cell: Cell, smoke: bool) -> tuple[Row, dict]:
    """`run_cell` in this thread's own process, which is replaced every CELLS_PER_PROCESS cells, so
    that memory does not pile up.

    (`max_tasks_per_child` of ProcessPoolExecutor can leave a worker that has ended without a
    successor: CPython issue 115634.)
    """
    if getattr(OWN, "left", 0) == 0:
        if hasattr(OWN, "pool"):
            OWN.pool.shutdown()
        OWN.pool, OWN.left = (
            ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")),
            CELLS_PER_PROCESS,
        )
    OWN.left -= 1
    return OWN.pool.submit(run_cell, cell, smoke).result()


def write_page(result: dict, path: Path) -> Path:
    """The result as a page beside its JSON: the numbers against their bars, the matrices, and every
    miss.
    """
    from benchmarks.planted.page import benchmark_page
    from tts_workbook.pages.benchmark_record import as_benchmark

    page = path.with_suffix(".html")
    atomic_files.write_text(page, benchmark_page(as_benchmark(result, str(path))))
    return page


def line(row: Row) -> str:
    """One row as a line of the log."""
    said = row.error or row.first or ("healthy" if row.healthy else "cannot tell")
    return (
        f"{row.cell.name}: {said} ({row.seconds:.0f}"
        f" s){'' if row.harm or row.cell.kind == 'clean' else ' masked'}"
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--smoke",
        action="store_true",
        help=f"8 faults, seed 0, two architectures, runs of {SMOKE_STEPS} steps",
    )
    parser.add_argument("--seeds", default="0,1,2,3")
    parser.add_argument("--kinds", default="fault,clean,outside,pair")
    parser.add_argument("--architectures", default=",".join(ARCHITECTURES))
    parser.add_argument("--faults", default="", help="only these; default: all")
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
    options = parser.parse_args()
    options.out = options.out or (STORE / "result" / "smoke.json" if options.smoke else RESULT)
    names = [
        name
        for name in options.architectures.split(",")
        if not (options.smoke and name in HELD_OUT)
    ]
    known = {name: architecture(name) for name in names}
    wanted = cells(
        known,
        HELD_OUT,
        [0] if options.smoke else [int(seed) for seed in options.seeds.split(",")],
        ("fault", "clean") if options.smoke else options.kinds.split(","),
        n_clean=2 if options.smoke else N_CLEAN,
    )
    if options.smoke:
        wanted = [cell for cell in wanted if cell.kind == "clean" or cell.fault in SMOKE_FAULTS]
    if options.faults:
        wanted = [cell for cell in wanted if cell.fault in options.faults.split(",")]
    rows, older = ({}, 0) if options.smoke else known_rows(wanted, options.out, options.keep)
    print(f"{len(wanted)} cells, {len(rows)} known, {older} of an older source", flush=True)
    started = time.perf_counter()
    STORE.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(options.workers) as threads:
        running = {
            threads.submit(in_recycled_process, cell, options.smoke): cell
            for cell in wanted
            if cell not in rows and not options.record
        }
        for future in as_completed(running):
            cell = running[future]
            rows[cell], report = future.result()
            if not options.smoke:
                atomic_files.write_json(
                    STORE / f"{cell.name}.json",
                    {"source": source(), "row": rows[cell].to_dict(), "report": report},
                )
            print(
                f"{datetime.datetime.now():%H:%M:%S} {len(rows)}/{len(wanted)} {line(rows[cell])}",
                flush=True,
            )
    ordered = [rows[cell] for cell in wanted if cell in rows]
    result = {
        "provenance": {
            "command": "python benchmarks/diagnosis.py" + (" --smoke" if options.smoke else ""),
            "commit": git_commit(ROOT),
            "device": f"cpu, {processor()}, {options.workers} one-thread workers",
            "date": datetime.date.today().isoformat(),
            "versions": {
                name: versions()[name] for name in ("python", "torch", "torchaudio", "numpy")
            },
            "source": source(),
            "rows_of_an_older_source": older,
            "complete": len(ordered) == len(wanted),
            "seconds": round(time.perf_counter() - started),
        },
        "held_out": list(HELD_OUT),
        "scores": score(ordered),
        "rows": [row.to_dict() for row in ordered],
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    atomic_files.write_json(options.out, result)
    print(write_page(result, options.out), flush=True)
    half = result["scores"]["scored" if not options.smoke else "tuning"]
    if half["n"]:
        detection, root, f1 = (
            half[name]["value"] for name in ("detection", "root_cause", "macro_f1")
        )
        clean = result["scores"]["clean"]
        print(
            f"{half['n']} harmful plants: detection {detection:.3f}, root cause {root:.3f},"
            f" macro-F1 {f1:.3f}; clean: {clean['alarms']} alarms in {clean['n']} runs"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
