"""Live curves: a button that stops a training, and a training that does not notice being
watched.
"""

import re
import threading

import pytest
from jupyter_client.manager import start_new_kernel

from tests.conftest import make_experiment, make_model
from tts_core import WorkbookError
from tts_core.training.loop import fit
from tts_core.training.state import start_training
from tts_workbook.kernel_protocol import RUNNER_VARIABLE
from tts_workbook.viz import LiveCurves
from tts_workbook.viz import live as module
from tts_workbook.viz.picture import workbook_style
from tts_workbook.viz.progress import Progress


@pytest.fixture
def in_kernel(monkeypatch):
    """A person's kernel, as far as the display goes: widgets are made, and what is displayed is
    noted.
    """
    displayed = []

    class Handle:
        def update(self, data, raw):
            displayed.append(data)

    monkeypatch.delenv(RUNNER_VARIABLE, raising=False)
    monkeypatch.setattr("tts_workbook.viz.progress._in_kernel", lambda: True)
    monkeypatch.setattr(
        "IPython.display.display", lambda box, display_id: displayed.append(box) or Handle()
    )
    return displayed


def trained(batch, **keywords):
    experiment = make_experiment(dropout=0.3, steps=12)
    return fit(start_training(experiment, make_model(experiment, batch)), batch, **keywords)


def test_the_button_ends_the_training_after_the_step_it_is_in_and_the_model_is_usable(
    batch, in_kernel, tmp_path
):
    live = LiveCurves(12, 1.2).show()

    def on_step(step, report):
        if step == 5:
            live.button.click()
        return live(step, report)

    training = trained(batch, on_step=on_step, checkpoint=tmp_path / "stopped.safetensors")
    assert live.stopped and training.step == 5 and live.steps == [1, 2, 3, 4, 5]
    assert (tmp_path / "stopped.safetensors").stat().st_size > 10_000
    assert re.fullmatch(r"training 5/12 mel L1 .* \(stopped by hand\)", in_kernel[-1]["text/plain"])


def test_being_watched_changes_no_bit(batch, in_kernel, monkeypatch):
    monkeypatch.setattr(module, "MIN_INTERVAL", 0.0)
    monkeypatch.setattr(module, "DRAWING_SHARE", 1.0)
    with LiveCurves(12, 1.2) as live:
        watched = trained(batch, on_step=live)
    assert watched.history == trained(batch).history
    assert live.mel_l1 == [row["mel_l1"] for row in watched.history] and not live.stopped


def test_the_curve_is_drawn_anew_but_not_at_every_step(batch, in_kernel, monkeypatch):
    now, pictures = [100.0], []
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    with LiveCurves(12, 1.2) as live:
        live.image.observe(lambda change: pictures.append(bytes(change["new"])), names="value")
        trained(
            batch,
            on_step=lambda step, report: now.__setitem__(0, now[0] + 0.3) or live(step, report),
        )
    assert len(pictures) == 3
    assert len(set(pictures)) == 3
    assert all(png.startswith(b"\x89PNG") for png in pictures)


def test_stop_at_the_last_step_has_stopped_nothing(batch):
    live = LiveCurves(12, 1.2)
    trained(
        batch,
        on_step=lambda step, report: (live.stop() if step == 12 else None) or live(step, report),
    )
    assert live.steps[-1] == 12 and not live.stopped


def test_an_error_in_the_training_is_not_hidden_and_named(in_kernel):
    with pytest.raises(ZeroDivisionError), LiveCurves(12, 1.2):
        raise ZeroDivisionError
    assert in_kernel[-1]["text/plain"].endswith("(stopped by ZeroDivisionError)")


def test_under_the_runner_it_is_progress_and_nothing_else(batch, monkeypatch, capsys):
    monkeypatch.setenv(RUNNER_VARIABLE, "{}")
    shown = []
    monkeypatch.setattr("IPython.display.display", lambda data, raw: shown.append(data))
    with LiveCurves(12, 1.2, Progress(12, "healthy", under_runner=True)) as live:
        trained(batch, on_step=live)
    assert live.button is None and live.image is None
    assert shown
    assert all(list(data) == ["application/vnd.tts-workbook.progress+json"] for data in shown)
    assert capsys.readouterr().out.startswith("healthy 12/12 mel L1 ")


def test_what_makes_no_sense_is_refused():
    with pytest.raises(WorkbookError, match="both must be positive"):
        LiveCurves(0, 1.2)
    with pytest.raises(WorkbookError, match="best_constant"):
        LiveCurves(5, float("nan"))


def test_one_thread_draws_at_a_time():
    """A widget's callback draws on another thread, and the style is global to the process."""
    seen = []
    with workbook_style():
        other = threading.Thread(
            target=lambda: workbook_style().__enter__() or seen.append("inside"), daemon=True
        )
        other.start()
        other.join(timeout=0.3)
        assert seen == [] and other.is_alive()


BUSY_CELL = """
import time
from types import SimpleNamespace
from tts_workbook.viz import LiveCurves
live = LiveCurves(1500, 1.2).show()
print("button", live.button.model_id, flush=True)
for step in range(1, 1501):
    time.sleep(0.02)
    if live(step, SimpleNamespace(mel_l1=1.0)):
        break
print("heard" if live.stopped else "never heard", flush=True)
"""


@pytest.fixture
def kernel(monkeypatch):
    monkeypatch.delenv(RUNNER_VARIABLE, raising=False)
    manager, client = start_new_kernel(kernel_name="python3", startup_timeout=180)
    yield client
    client.stop_channels()
    manager.shutdown_kernel(now=True)


def printed(kernel, pattern):
    """The first match of `pattern` in what the kernel prints."""
    while True:
        message = kernel.get_iopub_msg(timeout=180)
        assert message["msg_type"] != "error", message["content"]
        found = (
            re.search(pattern, message["content"].get("text", ""))
            if message["msg_type"] == "stream"
            else None
        )
        if found:
            return found


def test_a_click_is_heard_while_the_cell_is_running(kernel):
    """What JupyterLab sends: the click, addressed to a subshell, while the main shell is busy."""
    kernel.control_channel.send(kernel.session.msg("create_subshell_request"))
    subshell = kernel.get_control_msg(timeout=180)["content"]["subshell_id"]
    kernel.execute(BUSY_CELL)
    button = printed(kernel, r"button (\w+)").group(1)
    data = {"method": "custom", "content": {"event": "click"}}
    click = kernel.session.msg("comm_msg", {"comm_id": button, "data": data})
    click["header"]["subshell_id"] = subshell
    kernel.shell_channel.send(click)
    assert printed(kernel, r"(never )?heard").group() == "heard"
