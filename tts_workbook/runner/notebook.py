"""What a notebook uses: checked parameters, a place for figures, audio and numbers, and the verdict
that ends it.

    book = Notebook("03", question="Can the model overfit one clip?", values=globals())
    book.environment_line()
    ...
    book.verdict(answer=..., metrics={...}, items=[Item(...)])

Works in a kernel under the runner, in JupyterLab, under nbval, and in plain Python.
"""

from __future__ import annotations

import io
import os
import re
import shlex
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tts_core import atomic_files, environment
from tts_core.errors import WorkbookError
from tts_workbook.runner import cells, context, skipped_cells
from tts_workbook.runner.order import before
from tts_workbook.runner.parameters import Parameters, repository_root, settle_in_notebook
from tts_workbook.runner.verdicts import (
    Item,
    check_metrics,
    check_verdict,
    plain_number,
    read_verdict,
)
from tts_workbook.viz.progress import Progress

__all__ = ["Item", "Notebook"]

FIGURE_DPI = 110  # dots per inch
FIGURE_MAX_PIXELS = 2_400  # longest side; a larger figure is saved at a lower resolution


class Notebook:
    """One notebook's parameters and its part of the run folder. `values` is the notebook's
    `globals()`.

    Raises WorkbookError for an ill-typed value, and for a name in the parameters cell that the
    schema does not know.
    """

    def __init__(self, number: str, question: str, values: Mapping[str, Any]) -> None:
        if not re.fullmatch(r"\d\d", number):
            raise WorkbookError(f'Notebook number {number!r}: two digits, for example "03"')
        skipped_cells.run_all_cells()  # of a subject that was studied before in this kernel
        self.number, self.question = number, question
        self._context = context.from_environment(os.environ)
        if self._context is not None and self._context.number != number:
            raise WorkbookError(
                f"this is notebook {self._context.number}, but it calls itself "
                f"Notebook({number!r}, ...)"
            )
        self.parameters = self._settle(cells.parameters_among(values))
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
        return self.parameters.out

    @property
    def started_in(self) -> Path:
        """Where a subject's modules and relative files are looked for: the command's folder, in
        JupyterLab the repository.
        """
        return Path(self._context.started_in) if self._context is not None else repository_root()

    def environment_line(self) -> None:
        """Print one line: what the numbers below were computed with."""
        about = environment.describe()
        names = ("tts-overfit-workbook", "python", "torch", "torchaudio", "numpy")
        versions = ", ".join(f"{name} {about['versions'][name]}" for name in names)
        p = self.parameters
        studied = (
            f"subject {p.subject}" if p.subject else f"precision {p.precision}, data {p.data.name}"
        )
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
        picture = figure.png() if hasattr(figure, "png") else _png(figure)
        if self.alignment == "uniform" and not getattr(figure, "has_banner", False):
            from tts_workbook.viz.picture import with_banner

            picture = with_banner(picture)
        atomic_files.write_bytes(file, picture)
        self._record("figures", name, {"file": file.name, "caption": caption})
        _show_once(figure, picture)

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
            name: value if isinstance(value, str) else plain_number(value, f"log_metrics: {name}")
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

    def progress(self, total: int, label: str) -> Progress:
        """Context manager with `.update(step, text)`; see viz/progress.py."""
        return Progress(total, label, under_runner=self._context is not None)

    # --- other notebooks' results -----------------------------------------------------------------

    def upstream(self, number: str) -> dict[str, Any]:
        """The verdict of an earlier notebook, or WorkbookError naming the command that makes it."""
        path = self.out / "verdicts" / f"{number}.json"
        try:
            return read_verdict(path)
        except FileNotFoundError:
            by_runner = (
                f" with: tts-workbook run --only {number},{self.number} --out"
                f" {shlex.quote(str(self.out))}"
            )
            raise WorkbookError(
                f"notebook {self.number} reads what notebook {number} found, but there is no"
                f" {path}. Run notebook {number} first{by_runner if self._context else ''}"
            ) from None

    def verdicts(self) -> dict[str, dict[str, Any]]:
        """Number -> verdict of every notebook of this run folder that runs before this one, in
        order; may be empty.
        """
        there = {file.stem: file for file in (self.out / "verdicts").glob("[0-9][0-9].json")}
        return {number: read_verdict(there[number]) for number in before(self.number, there)}

    def verdict(self, answer: str, metrics: Mapping[str, Any], items: list[Item] = ()) -> None:
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
        content = {
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
        files = [
            file
            for folder in self._folders.values()
            for file in folder.rglob("*")
            if file.is_file()
        ]
        return {
            str(file.relative_to(self.out)): file.stat().st_size
            for file in sorted(files)
            if file.stat().st_mtime >= self._started - 2 and not file.name.startswith(".")
        }

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


def _png(figure: Any) -> bytes:
    """A plain matplotlib figure as PNG; the package's own pictures know a smaller way, `.png()`."""
    pixels = max(figure.get_size_inches()) * FIGURE_DPI
    picture = io.BytesIO()
    figure.savefig(
        picture,
        format="png",
        dpi=FIGURE_DPI * min(1.0, FIGURE_MAX_PIXELS / pixels),
        bbox_inches="tight",
    )
    return picture.getvalue()


def _show_once(figure: Any, picture: bytes) -> None:
    """In a kernel: display the saved picture, and keep pyplot from drawing the figure a second
    time.
    """
    try:
        from IPython import get_ipython
    except ImportError:
        return
    if get_ipython() is None:
        return
    from IPython.display import Image, display
    from matplotlib import pyplot

    display(Image(data=picture, format="png"))
    pyplot.close(figure)
