"""What a notebook uses: checked parameters, a place for figures, audio and numbers, and the verdict
that ends it.

    book = Notebook("03", question="Can the model overfit one clip?", values=globals())
    book.environment_line()
    ...
    book.verdict(answer=..., metrics={...}, items=[Item(...)])

Works in a kernel under the runner, in JupyterLab, under nbval, and in plain Python.
"""

from __future__ import annotations

import os
import re
import shlex
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tts_core import atomic_files, environment
from tts_core.errors import WorkbookError
from tts_workbook.runner import context, display
from tts_workbook.runner.parameters import Parameters, repository_root, settle_in_notebook
from tts_workbook.runner.parameters_cell import parameters_among
from tts_workbook.runner.plan import before
from tts_workbook.runner.verdicts import (
    Item,
    check_metrics,
    check_verdict,
    read_verdict,
    record_number,
)

__all__ = ["Item", "Notebook"]

CLOCK_SLACK = 2.0  # seconds by which a file system's clock may lag behind ours


class Notebook:
    """One notebook's parameters and its part of the run folder. `values` is the notebook's
    `globals()`.

    Raises WorkbookError for an ill-typed value, and for a name in the parameters cell that the
    schema does not know.
    """

    def __init__(self, number: str, question: str, values: Mapping[str, Any]) -> None:
        if not re.fullmatch(r"\d\d", number):
            raise WorkbookError(f'Notebook number {number!r}: two digits, for example "03"')
        self.number, self.question = number, question
        self._context = context.from_environment(os.environ)
        if self._context is not None and self._context.number != number:
            raise WorkbookError(
                f"this is notebook {self._context.number}, but it calls itself "
                f"Notebook({number!r}, ...)"
            )
        self.parameters = self._settle(parameters_among(values))
        # where the durations come from; "uniform" puts a warning on every figure and answer
        self.alignment = ""
        self._started = time.time()
        self._folders: dict[str, Path] = {}
        self._manifests: dict[str, dict[str, dict]] = {"figures": {}, "audio": {}}
        self._metrics_open = False
        if self.parameters.threads is not None:
            import torch

            torch.set_num_threads(self.parameters.threads)

    def _settle(self, cell: dict[str, Any]) -> Parameters:
        if self._context is None:
            return settle_in_notebook(cell, os.environ)
        return settle_in_notebook(
            {**cell, "data": self._context.data, "out": self._context.out}, {}
        )

    @property
    def out(self) -> Path:
        """The run folder."""
        return self.parameters.out

    @property
    def under_runner(self) -> bool:
        """Whether the runner executes this notebook, which has then checked what is studied."""
        return self._context is not None

    @property
    def started_in(self) -> Path:
        """Where a subject's modules and relative files are looked for: the command's folder, in
        JupyterLab the repository.
        """
        return Path(self._context.started_in) if self._context is not None else repository_root()

    def environment_line(self) -> None:
        """Print one line: what the numbers below were computed with."""
        about = environment.describe_environment()
        names = ("tts-overfit-workbook", "python", "torch", "torchaudio", "numpy")
        versions = ", ".join(f"{name} {about['versions'][name]}" for name in names)
        p = self.parameters
        studied = f"precision {p.precision}, data {p.data.name}"
        if p.subject or p.subjects:
            studied = f"subject {p.subject or p.subjects}"
        print(
            f"{versions} · device {about['device']}, {about['threads']} threads · profile"
            f" {p.profile}, seed {p.seed}, {studied}"
        )

    # --- figures, audio, numbers ------------------------------------------------------------------

    def save_figure(self, figure: Any, name: str, caption: str) -> None:
        """Save a matplotlib figure as `figures/NN_name.png` with its caption; in a kernel, show
        that very picture.
        """
        file = self._file("figures", name, ".png", caption)
        picture = display.figure_png(figure, uniform_durations=self.alignment == "uniform")
        atomic_files.write_bytes(file, picture)
        self._record("figures", name, {"file": file.name, "caption": caption})
        display.show_once(figure, picture)

    def save_audio(self, samples: Any, sample_rate: int, name: str, caption: str) -> None:
        """Save (L,) samples in [-1, 1] as 16-bit `audio/NN_name.wav` and record the caption.
        Nothing is normalised.
        """
        from tts_core.speech.audio import save_wav

        file = self._file("audio", name, ".wav", caption)
        file.parent.mkdir(parents=True, exist_ok=True)
        samples = np.asarray(samples)
        save_wav(file, samples, sample_rate)
        seconds = round(len(samples) / sample_rate, 3)
        self._record(
            "audio",
            name,
            {"file": file.name, "caption": caption, "seconds": seconds, "sample_rate": sample_rate},
        )

    def log_metrics(self, row: Mapping[str, Any]) -> None:
        """Append one row of finite numbers and short texts to `metrics/NN.jsonl`."""
        file = self.out / "metrics" / f"{self.number}.jsonl"
        checked = {
            name: value if isinstance(value, str) else record_number(value, f"log_metrics: {name}")
            for name, value in row.items()
        }
        if not self._metrics_open:  # a new execution starts a new file
            file.unlink(missing_ok=True)
            self._metrics_open = True
        atomic_files.append_line(file, atomic_files.compact_json(checked))

    def folder(self, name: str) -> Path:
        """`OUT/name/`, made. What this notebook leaves in it is named in the verdict: a later loss
        is noticed.
        """
        if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
            raise WorkbookError(
                f"folder {name!r}: lower-case letters, digits and underscores, such as checkpoints"
            )
        path = self.out / name
        path.mkdir(parents=True, exist_ok=True)
        self._folders[name] = path
        return path

    def progress(self, total: int, label: str) -> display.Progress:
        """Context manager with `.update(step, text)`; see viz/progress.py."""
        return display.new_progress(total, label, under_runner=self._context is not None)

    # --- other notebooks' results -----------------------------------------------------------------

    def upstream(self, number: str) -> dict[str, Any]:
        """The verdict of an earlier notebook, or WorkbookError naming the command that makes it."""
        path = self.out / "verdicts" / f"{number}.json"
        try:
            return read_verdict(path)
        except FileNotFoundError:
            way_out = f"Run notebook {number} first"
            if self._context is not None:
                folder = shlex.quote(str(self.out))
                way_out += f" with: tts-workbook run --only {number},{self.number} --out {folder}"
            raise WorkbookError(
                f"notebook {self.number} reads what notebook {number} found, but there is no"
                f" {path}. {way_out}"
            ) from None

    def verdicts(self) -> dict[str, dict[str, Any]]:
        """Number -> verdict of every notebook of this run folder that runs before this one, in
        order; may be empty.
        """
        there = {file.stem: file for file in (self.out / "verdicts").glob("[0-9][0-9].json")}
        found = {number: read_verdict(there[number]) for number in before(self.number, there)}
        for number, verdict in found.items():
            if verdict["question"] == self.question:
                raise WorkbookError(
                    f"{there[number]} answers the question of this notebook, {self.number}: it was"
                    f" made when this one was number {number}. Run notebook {number} anew, or"
                    " choose another out"
                )
        return found

    def verdict(self, answer: str, metrics: Mapping[str, Any], items: Sequence[Item] = ()) -> None:
        """The last call: write `verdicts/NN.json` atomically. Raises WorkbookError when a part of
        it is malformed.
        """
        file = self.out / "verdicts" / f"{self.number}.json"
        if self.alignment == "uniform":
            answer = f"UNIFORM DURATIONS, not measured: {answer}"
        for item in items:
            if not isinstance(item, Item):
                raise WorkbookError(f"verdict: {item!r} is not an Item")
        made_by = self._context
        content: dict[str, Any] = {
            "notebook": self.number,
            "question": self.question,
            "answer": answer,
            "metrics": check_metrics(dict(metrics)),
            "items": [item.to_dict() for item in items],
            "provenance": {
                "token": made_by.token if made_by else None,
                "key": made_by.key if made_by else None,
                "made_by": "tts-workbook run" if made_by else "a reader, cell by cell",
                "package_version": environment.versions()["tts-overfit-workbook"],
                "parameters": self.parameters.to_dict(),
                "artefacts": self._artefacts(),
                "written": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
            },
        }
        atomic_files.write_json(file, check_verdict(content, f"verdict of notebook {self.number}"))

    # --- inside -----------------------------------------------------------------------------------

    def _artefacts(self) -> dict[str, int]:
        """Path below OUT -> bytes, of the files that this execution left in its folders."""
        there: list[Path] = []
        for folder in self._folders.values():
            there += folder.rglob("*")
        sizes = {}
        for file in sorted(there):
            if not file.is_file() or file.name.startswith("."):
                continue
            facts = file.stat()
            if facts.st_mtime >= self._started - CLOCK_SLACK:
                sizes[str(file.relative_to(self.out))] = facts.st_size
        return sizes

    def _file(self, kind: str, name: str, suffix: str, caption: str) -> Path:
        if not re.fullmatch(r"[a-z0-9][a-z0-9_]*", name):
            raise WorkbookError(
                f"{kind}: name {name!r}, but it must be lower-case letters, digits and underscores"
            )
        if not isinstance(caption, str) or not caption.strip():
            raise WorkbookError(f"{kind}: {name} has no caption; say what to look or listen for")
        return self.out / kind / f"{self.number}_{name}{suffix}"

    def _record(self, kind: str, name: str, entry: dict[str, Any]) -> None:
        """Captions in the order of their first saving: `figures/NN.json`, `audio/NN.json`."""
        self._manifests[kind][name] = {"name": name, **entry}
        atomic_files.write_json(
            self.out / kind / f"{self.number}.json", list(self._manifests[kind].values())
        )
