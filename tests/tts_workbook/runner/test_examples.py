"""The adapter that README and notebook 08 show: short, sound, and learnt within the steps that the
notebook gives it.
"""

from tests.conftest import ROOT
from tts_workbook.lab.lab import Lab
from tts_workbook.subject.loading import load_subject
from tts_workbook.subject.subject import check_subject

EXAMPLE = ROOT / "examples" / "tacotron2_subject.py"


def test_the_adapter_is_short_and_every_part_of_it_runs():
    code = [line for line in EXAMPLE.read_text("utf-8").splitlines() if line.strip()]
    assert len(code) <= 50
    check_subject(load_subject(f"{EXAMPLE}:subject"))


def test_the_readme_shows_the_adapter_as_it_is():
    assert f"```python\n{EXAMPLE.read_text('utf-8')}```" in (ROOT / "README.md").read_text("utf-8")


def test_the_model_learns_its_clip_within_the_steps_of_the_smoke_profile():
    lab = Lab(load_subject(f"{EXAMPLE}:subject"), steps=48)
    assert lab.course().learnt and lab.course().final < 0.45
