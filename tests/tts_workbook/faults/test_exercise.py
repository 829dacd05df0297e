"""Adding a cause touches one file: the one that CONTRIBUTING shows is put into a copy of the
package, and everything knows it.
"""

import os
import re
import shutil
import subprocess
import sys

import pytest

from tests.conftest import ROOT

CAUSE = "loop.batch_overwritten"
PROGRAM = """
import dataclasses
from tests.tts_workbook.diagnosis.tiny_subject import lab
from tests.tts_workbook.diagnosis.test_observe import step_with
from benchmarks.planted.plants import GENERIC
from tts_workbook.diagnosis.diagnose import investigate
from tts_workbook.faults.examine import examine
from tts_workbook.faults.loop import batch_overwritten as exercise
from tts_workbook.faults.planting import Setting
from tts_workbook.faults.registry import CAUSES

cause = CAUSES["loop.batch_overwritten"]

# decide, every end once
table = [
    (exercise.Overwritten(3, (), 0.0), ("excluded", "", "as it was")),
    (exercise.Overwritten(3, (0,), 0.0), ("question", "train_step", "another input")),
    (exercise.Overwritten(3, (1,), 1e-8), ("question", "train_step", "another input")),
    (exercise.Overwritten(3, (1,), 0.2), ("confirmed", "train_step", "another target")),
]
for numbers, wanted in table:
    found = exercise.decide(numbers)
    assert (found.level, found.where, found.reason) == wanted, (numbers, found)

# a subject that has the fault, one that has not, and one that writes into a copy
clean = lab(train_step=step_with())
assert examine(cause, clean).level == "excluded"
planted = GENERIC[cause.id](lambda setting: clean.subject, Setting(0))
faulty = type(clean)(planted, steps=clean.steps)
assert examine(cause, faulty).level == "confirmed"

def copied(model, optimizer, batch):
    planted.train_step(model, optimizer, {name: part.clone() for name, part in batch.items()})

alike = type(clean)(dataclasses.replace(planted, train_step=copied), steps=clean.steps)
assert examine(cause, alike).level == "excluded"

# the report knows it
report = investigate(faulty)
assert report.confirmed(cause.id) and "copy before you write" in str(report)
print("known everywhere")
"""


@pytest.fixture
def house_with_the_exercise(tmp_path):
    """A copy of what is imported, with the one file more."""
    for part in ("tts_workbook", "benchmarks", "tests"):
        ignored = shutil.ignore_patterns("__pycache__", "results")
        shutil.copytree(ROOT / part, tmp_path / part, ignore=ignored)
    page = (ROOT / "CONTRIBUTING.md").read_text("utf-8")
    (source,) = re.findall(rf'```python\n("""{re.escape(CAUSE)}.*?)```', page, re.DOTALL)
    area, name = CAUSE.split(".")
    (tmp_path / "tts_workbook" / "faults" / area / f"{name}.py").write_text(source, "utf-8")
    return tmp_path


def test_one_file_is_all_that_a_new_cause_takes(house_with_the_exercise):
    house = house_with_the_exercise
    path = os.pathsep.join([str(house), str(ROOT)])  # tts_core is that of the checkout
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        cwd=house,
        env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.strip().endswith("known everywhere")
