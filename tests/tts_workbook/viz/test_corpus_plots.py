"""The picture of a training on a corpus stands at the numbers given: errors over the best constant,
text use, where the best was.
"""

import pytest

from tests.tts_workbook.viz.readings import texts_of
from tts_core.errors import WorkbookError
from tts_workbook.viz import plot_corpus_training

RUN = {
    "best_step": 500,
    "validation": {
        "steps": [250, 500],
        "fr_over_constant": [1.2, 0.6],
        "fr_l1": [1.8, 0.9],
        "tf_l1": [0.45, 0.3],
        "text_use": [1.0, 1.4],
    },
}


def test_lines_are_the_validations_and_every_run_names_its_best_step():
    picture = plot_corpus_training({"plain": RUN, "hidden": {**RUN, "best_step": 250}})
    upper, lower = picture.axes
    free, forced = (line.get_ydata() for line in upper.lines[:2])
    # 0.45 ln units where 1.8 are 1.2 constants
    assert free == pytest.approx([1.2, 0.6]) and forced == pytest.approx([0.3, 0.2])
    assert lower.lines[0].get_ydata() == pytest.approx([1.0, 1.4]) and upper.get_ylim()[0] == 0
    names = texts_of(upper.get_legend().get_texts())
    assert "plain: free-running (best at step 500)" in names
    assert "hidden: free-running (best at step 250)" in names
    assert upper.lines[0].get_color() != upper.lines[2].get_color() and picture.png()


@pytest.mark.parametrize(
    "broken, message",
    (
        ({"best_step": 1}, "no 'validation'"),
        (
            {"best_step": 1, "validation": {"steps": [1], "fr_over_constant": [1.0, 2.0]}},
            "1 steps but 2 values",
        ),
        ({**RUN, "best_step": None}, "best_step"),
    ),
)
def test_runs_that_cannot_be_drawn_are_named(broken, message):
    with pytest.raises(WorkbookError, match=message):
        plot_corpus_training({"plain": broken})
