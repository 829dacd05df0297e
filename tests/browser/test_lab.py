"""JupyterLab as a person uses it: run all, stop a training, move the scrubber, choose a clip,
listen.
"""

import re

import pytest

from tests.browser.lab_page import cell_with, open_and_run_all, picture_in, verdict_of, wait_until
from tts_core.training.checkpoint import load_model

pytestmark = pytest.mark.browser

STEPS = 2000  # far more than is trained: stop is pressed
ENOUGH = 110  # the snapshot of step 100 is taken by then
PLAYS = """async audio => {
    if (audio.readyState < 1)
        await new Promise((done, fail) => { audio.onloadedmetadata = done; audio.onerror = fail; });
    const file = await (await fetch(audio.src)).arrayBuffer();
    const decoded = await new OfflineAudioContext(1, 1, 22050).decodeAudioData(file);
    const larger = (peak, sample) => Math.max(peak, Math.abs(sample));
    const peak = decoded.getChannelData(0).reduce(larger, 0);
    return [audio.duration, decoded.duration, peak];
}"""


def stay_on_this_machine(watched, lab):
    assert [
        url for url in watched.requests if not url.startswith((lab.url, "data:", "blob:"))
    ] == []


def step_shown(watched, name):
    """The step that the progress line of arm `name` has reached; 0 without one."""
    labels = watched.page.locator(".jp-OutputArea .widget-label")
    text = " ".join(labels.all_text_contents())  # off screen there is no inner text
    found = re.search(rf"{name} (\d+)/{STEPS} mel L1", text)
    return int(found.group(1)) if found else 0


def stop_by_hand(watched, training, name):
    """Press stop once arm `name` has trained long enough and its curve moves."""
    wait_until(lambda: step_shown(watched, name) >= ENOUGH, f"step {ENOUGH} of {name}")
    early = picture_in(training)
    wait_until(lambda: picture_in(training) != early, "the curve to be drawn anew")
    training.get_by_role("button", name="Stop, keep the model").click()
    training.get_by_text(re.compile(rf"{name} \d+/{STEPS} mel L1 .*\(stopped by hand\)")).wait_for()


def slide_to_the_end(watched, source):
    """Move the slider of the cell that holds `source`; its picture has to change."""
    cell = cell_with(watched, source)
    first = picture_in(cell)
    track = cell.locator(".noUi-target").nth(0)
    box = track.bounding_box()
    track.click(position={"x": box["width"] - 2, "y": box["height"] / 2})
    wait_until(lambda: picture_in(cell) != first, f"another picture in {source}")


def test_stop_leaves_a_usable_model_and_the_scrubber_changes_the_picture(start_lab, watched):
    lab = start_lab(TTS_WORKBOOK_STEPS=str(STEPS))
    open_and_run_all(lab, watched, "03_overfit_one_clip.ipynb")
    training = cell_with(watched, "with LiveCurves(")
    for name in ("healthy", "no_norm", "seed"):
        stop_by_hand(watched, training, name)

    verdict = verdict_of(lab, watched, "03")
    assert verdict["metrics"]["stopped_by_hand"] == 3
    assert {item["verdict"] for item in verdict["items"]} == {"undecided"}
    for name in ("healthy", "no_norm", "seed"):
        stopped = int(
            re.search(
                rf"{name} was stopped by hand at step (\d+) of {STEPS}", verdict["answer"]
            ).group(1)
        )
        assert ENOUGH <= stopped < STEPS
        assert load_model(lab.out / "checkpoints" / f"{name}.safetensors").notes["preset"] == name
        assert verdict["metrics"][f"{name}_tf_l1"] > 0

    for source in ("snapshots = [set(", 'label="layer"'):
        slide_to_the_end(watched, source)
    stay_on_this_machine(watched, lab)


def test_the_clip_chooser_shows_another_clip_and_every_player_decodes(start_lab, watched):
    lab = start_lab()
    open_and_run_all(lab, watched, "01_check_data.ipynb")
    assert verdict_of(lab, watched, "01")["metrics"]["clips"] == 5
    chooser = cell_with(watched, "[clip.id, *(row.id")
    first, player = picture_in(chooser), chooser.locator("audio")
    heard = player.get_attribute("src")
    menu = chooser.locator("select")
    menu.select_option(menu.locator("option").all_inner_texts()[1])
    wait_until(
        lambda: picture_in(chooser) != first and player.get_attribute("src") != heard,
        "the other clip",
    )
    players = watched.page.locator(".jp-OutputArea audio")
    assert players.count() == 3
    for index in range(players.count()):
        duration, decoded, peak = players.nth(index).evaluate(PLAYS)
        assert (
            1 < duration < 30
            and decoded == pytest.approx(duration, abs=0.05)
            and 0.01 < peak <= 1.0
        )
    stay_on_this_machine(watched, lab)
