"""Live training curves with a stop button.

While a cell trains, JupyterLab (4.4 and newer) addresses a click to a subshell of the kernel
(ipykernel 7 and newer): its callback runs on another thread and raises a flag, which the training
sees after the step it is in. In a front end without subshells the click waits until the cell ends;
the kernel's interrupt is then the only way out, and that one keeps nothing.
"""

from __future__ import annotations

import threading
import time
from typing import Any

from tts_core.errors import WorkbookError
from tts_core.training.step import StepReport
from tts_workbook.viz.frontend import load_widgets, under_runner
from tts_workbook.viz.inputs import finite_number
from tts_workbook.viz.progress import Progress
from tts_workbook.viz.training_plots import plot_loss_curves

MIN_INTERVAL = 1.0  # seconds between two redraws, at least
DRAWING_SHARE = 0.1  # of the time, at most, goes into drawing
TOOLTIP = (
    "ends this training after the step it is in; the cells below go on with what it has learned"
)


class LiveCurves:
    """The `on_step` of a training: shows its progress and curve, and returns True once stop was
    pressed.

        with LiveCurves(steps, best_constant, book.progress(steps, "healthy")) as live:
            train_arm(arm, on_step=live)

    `best_constant` in ln units; `progress` says how far the training is, in the reader's own view:
    curve and button are there only where that is a widget, so a headless run prints as without
    them. It computes nothing that the training sees. Without `with`, `show()` begins and the last
    step ends. Raises WorkbookError for numbers that are not positive.
    """

    def __init__(
        self, total_steps: int, best_constant: float, progress: Progress | None = None
    ) -> None:
        self.total_steps = int(finite_number("total_steps", total_steps))
        self.best_constant = finite_number("best_constant", best_constant)
        if self.total_steps < 1 or self.best_constant <= 0:
            raise WorkbookError(
                f"LiveCurves: total_steps = {total_steps}, best_constant = {best_constant}, but"
                " both must be positive"
            )
        self.progress = progress or Progress(
            self.total_steps, "training", under_runner=under_runner()
        )
        self.steps: list[int] = []
        self.mel_l1: list[float] = []  # ln units, one per step
        self.stopped = False  # the button ended the training before its last step
        self.button: Any = None  # widgets, where there are any
        self.image: Any = None
        self._pressed = threading.Event()
        self._open = False
        self._next_drawing = 0.0

    def show(self) -> LiveCurves:
        """Display it, empty: below the bar a button and the place of the curve."""
        if self.progress.has_widgets:
            self._make_widgets()
        self.progress.__enter__()
        self._open = True
        return self

    __enter__ = show

    def stop(self) -> None:
        """What the button does: the training ends after the step it is in. Any thread may call
        it.
        """
        self._pressed.set()
        if self.button is not None:
            self.button.disabled = True
            self.button.description = "stopping after this step"

    def __call__(self, step: int, report: StepReport) -> bool:
        """Note a step, redraw now and then; True when the training is to stop. `step` counts from
        1.
        """
        self.steps.append(step)
        self.mel_l1.append(report.mel_l1)
        self.progress.update(step, f"mel L1 {report.mel_l1:.3f}")
        if self.image is not None and time.monotonic() >= self._next_drawing:
            self._draw()
        self.stopped = self._pressed.is_set() and step < self.total_steps
        if self.stopped or step >= self.total_steps:
            self.close()
        return self.stopped

    def close(self, remark: str = "") -> None:
        """Take bar, button and curve away and leave one line; the curve is drawn by a cell of its
        own.
        """
        if not self._open:
            return
        self._open = False
        if self.stopped and not remark:
            remark = " (stopped by hand)"
        self.progress.finish(remark)

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        self.close("" if kind is None else f" (stopped by {kind.__name__})")

    def _make_widgets(self) -> None:
        """A button and the place of the curve, under the bar."""
        widgets = load_widgets()
        self.button = widgets.Button(
            description="Stop, keep the model",
            icon="stop",
            button_style="warning",
            layout=widgets.Layout(width="max-content"),
            tooltip=TOOLTIP,
        )
        heard_at_once(self.button)
        self.button.on_click(lambda _: self.stop())
        self.image = widgets.Image(
            format="png", layout=widgets.Layout(max_width="100%", object_fit="contain")
        )
        self.progress.below = [self.button, self.image]

    def _draw(self) -> None:
        start = time.monotonic()
        curve = {"steps": self.steps, "mel_l1": self.mel_l1}
        levels = {"best constant": self.best_constant}
        self.image.value = plot_loss_curves({self.progress.label: curve}, levels).png()
        end = time.monotonic()
        pause = (end - start) * (1 / DRAWING_SHARE - 1)
        self._next_drawing = end + max(MIN_INTERVAL, pause)


def heard_at_once(widget: Any) -> None:
    """Let the clicks on `widget` reach the subshell that the front end addresses, though this cell
    is busy.

    ipykernel 7.4 notes on a widget's comm which shell sent on it last, and brings every message
    there, whatever the front end asks for: for a widget made by the running cell that is the busy
    shell itself. Without the note the address counts. Other versions have no such note.
    """
    vars(widget.comm).pop("_reply_subshell_id", None)
