"""report.html opened from the disk, as it is mailed around: every figure and player is there,
nothing is fetched.
"""

import json
import subprocess
import sys

import pytest

pytestmark = pytest.mark.browser

LOADED = "images => Promise.all(images.map(image => image.decode().then(() => image.naturalWidth)))"
DURATIONS = """players => Promise.all(players.map(audio => new Promise((done, fail) => {
    const seen = () => done(audio.duration);
    if (audio.readyState >= 1) return seen();
    audio.addEventListener("loadedmetadata", seen);
    audio.addEventListener("error", () => fail(new Error(audio.error.message)));
    audio.preload = "metadata";
    audio.load();
})))"""


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory):
    """A smoke run of 01 and 03: pictures and sounds."""
    out = tmp_path_factory.mktemp("report") / "run"
    command = [
        sys.executable,
        "-m",
        "tts_workbook.cli",
        "run",
        "--profile",
        "smoke",
        "--only",
        "01,03",
        "--out",
        str(out),
        "-p",
        "threads=1",
    ]
    process = subprocess.run(command, capture_output=True, text=True, timeout=900)
    assert process.returncode == 0, process.stdout[-3000:] + process.stderr[-3000:]
    return out


def manifest(out, kind):
    return [
        entry
        for file in sorted((out / kind).glob("*.json"))
        for entry in json.loads(file.read_text())
    ]


def test_every_figure_and_player_is_there_with_its_caption_and_nothing_leaves_the_machine(
    run_folder, watched
):
    page = watched.page
    page.goto((run_folder / "report.html").as_uri())
    figures, sounds = manifest(run_folder, "figures"), manifest(run_folder, "audio")
    assert len(figures) > 15 and len(sounds) == 2

    widths = page.locator("img").evaluate_all(LOADED)
    assert len(widths) == len(figures) and min(widths) > 400
    durations = page.locator("audio").evaluate_all(DURATIONS)
    assert durations == pytest.approx([entry["seconds"] for entry in sounds], abs=0.05)

    text = " ".join(page.locator("body").inner_text().split())
    assert [
        entry["caption"]
        for entry in figures + sounds
        if " ".join(entry["caption"].split()) not in text
    ] == []
    overflow = page.evaluate(
        "document.documentElement.scrollWidth - document.documentElement.clientWidth"
    )
    assert overflow <= 0  # nothing to scroll sideways for
    assert watched.problems == []
    assert [url for url in watched.requests if not url.startswith(("file:", "data:"))] == []
