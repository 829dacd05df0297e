"""Pictures of one step: bars and dots stand at their numbers, and what cannot be true is
refused.
"""

import numpy as np
import pytest

from tests.tts_workbook.viz.readings import texts_of
from tts_core import WorkbookError
from tts_workbook.viz import (
    plot_loss_shares,
    plot_memory_scale,
    plot_precision,
    plot_short_runs,
    plot_updates_without,
)
from tts_workbook.viz.step_plots import LOSS_COLOURS, LOSS_MARKERS, loss_looks

SHARE = {
    "mel": {"text_embedding": 0.1, "mel_projection_in": 0.6},
    "duration": {"text_embedding": 0.8, "mel_projection_in": 0.0},
    "stop": {"text_embedding": 0.1, "mel_projection_in": 0.4},
}
COSINE = {
    ("mel", "duration"): {"text_embedding": -0.2},
    ("mel", "stop"): {"text_embedding": 0.5, "mel_projection_in": -1.0},
}
ARMS = {"healthy": {"share": SHARE, "cosine": COSINE}, "seed": {"share": SHARE, "cosine": COSINE}}


def test_shares_are_stacked_to_one_and_cosines_stand_at_their_values():
    picture = plot_loss_shares(ARMS)
    shares, _, cosines, _ = picture.axes
    # the last loss ends at 1
    ends = {round(bar.get_x() + bar.get_width(), 6) for bar in shares.patches[-2:]}
    assert ends == {1.0} and [bar.get_width() for bar in shares.patches[:2]] == [0.1, 0.6]
    assert texts_of(shares.get_yticklabels()) == [
        "text_embedding",
        "mel_projection_in",
    ]
    assert cosines.collections[1].get_offsets().tolist() == [[0.5, 0], [-1.0, 1]]
    assert cosines.get_xlabel() == "cosine"
    assert len(plot_loss_shares(ARMS, modules=["mel_projection_in"]).axes[0].patches) == 3


def test_an_arm_that_lacks_a_module_leaves_its_row_empty():
    without = {
        term: {"mel_projection_in": values["mel_projection_in"]} for term, values in SHARE.items()
    }
    picture = plot_loss_shares(
        {"healthy": ARMS["healthy"], "seed": {"share": without, "cosine": {}}}
    )
    assert len(picture.axes[0].patches) == 6 and len(picture.axes[1].patches) == 3


def test_losses_of_another_model_have_looks_of_their_own():
    share = {"mel": {"encoder": 0.7}, "gate": {"encoder": 0.2}, "attention": {"encoder": 0.1}}
    cosine = {("mel", "gate"): {"encoder": 0.1}, ("gate", "attention"): {"encoder": 0.2}}
    picture = plot_loss_shares({"mine": {"share": share, "cosine": cosine}})
    colours = [bar.get_facecolor() for bar in picture.axes[0].patches]
    assert len(set(colours)) == 3
    assert len(set(loss_looks(share)[1].values()) - set(LOSS_MARKERS.values())) == 2
    # gate, in both panels
    assert picture.axes[1].collections[0].get_edgecolor()[0].tolist() == list(colours[1])


def test_shares_that_do_not_add_up_and_impossible_cosines_are_refused():
    with pytest.raises(WorkbookError, match=r"shares of text_embedding in healthy add up to 1\.1"):
        plot_loss_shares(
            {
                "healthy": {
                    "share": {**SHARE, "mel": {"text_embedding": 0.2, "mel_projection_in": 0.6}},
                    "cosine": {},
                }
            }
        )
    with pytest.raises(WorkbookError, match="beyond ±1"):
        plot_loss_shares(
            {"healthy": {"share": SHARE, "cosine": {("mel", "stop"): {"text_embedding": 1.2}}}}
        )
    with pytest.raises(WorkbookError, match=r"modules: decoder\.norm not among"):
        plot_loss_shares(ARMS, modules=["decoder.norm"])


def test_updates_without_each_loss_and_the_clip():
    changes = {
        "healthy": {
            left_out: {"text_embedding": 0.5, "decoder.norm": place}
            for left_out, place in (("mel", 1.2), ("duration", 0.0), ("stop", 0.1), ("clip", 0.3))
        }
    }
    axes = plot_updates_without(changes).axes[0]
    assert [dots.get_offsets()[1].tolist() for dots in axes.collections] == [
        [1.2, 1],
        [0.0, 1],
        [0.1, 1],
        [0.3, 1],
    ]
    assert axes.lines[0].get_xdata()[0] == pytest.approx(2**0.5) and axes.get_xlim()[1] >= 1.5
    with pytest.raises(WorkbookError, match="must not be negative"):
        plot_updates_without({"healthy": {"mel": {"a": -0.1}}})


def test_precision_and_its_floor_are_told_apart():
    axes = plot_precision(
        {"healthy": {"bf16": {"a": 0.03, "b": 0.0}}}, {"healthy": {"bf16": {"a": 0.02, "b": 0.01}}}
    ).axes[0]
    step, floor = axes.collections
    assert [step.get_label(), floor.get_label()] == ["bf16", "bf16 floor"]
    assert step.get_offsets().tolist() == [[0.03, 0]]
    assert floor.get_offsets().tolist() == [
        [0.02, 0],
        [0.01, 1],
    ]
    assert len(step.get_facecolor())
    assert not len(floor.get_facecolor())
    assert axes.get_xscale() == "log"
    with pytest.raises(WorkbookError, match="all are zero"):
        plot_precision({"healthy": {"bf16": {"a": 0.0}}})


def test_short_runs_are_drawn_step_by_step_in_one_style_per_run():
    picture = plot_short_runs(
        {arm: {"clip": [2.0, 1.0, 0.5], "no clip": [2.0, 1.1, 0.7]} for arm in ("healthy", "seed")}
    )
    for axes in picture.axes:
        assert [line.get_ydata().tolist() for line in axes.lines] == [
            [2.0, 1.0, 0.5],
            [2.0, 1.1, 0.7],
        ]
        assert [line.get_linestyle() for line in axes.lines] == ["-", "--"]
        assert axes.lines[0].get_xdata()[0] == 1


def memory_curves(**changes):
    values = {
        "factor": [0.5, 1.0, 2.0],
        "memory_std": [7.0, 14.0, 28.0],
        "logit_std": [6, 13, 26],
        "entropy": [0.6, 0.5, 0.4],
        "over_stream": [5, 12, 25],
        "query_gradient": [0.4, 0.5, 1.7],
        "key_gradient": [0.4, 0.5, 1.6],
        "text_gradient": [0.04, 0.05, 0.13],
    }
    return {**values, **changes}


def test_memory_scale_marks_the_model_as_it_is():
    picture = plot_memory_scale(
        {"healthy": memory_curves(memory_std=[0.8, 1.2, 2.1]), "seed": memory_curves()}
    )
    entropy = next(axes for axes in picture.axes if "entropy" in axes.get_title(loc="left"))
    curve, own = entropy.lines[2:4]
    assert curve.get_ydata().tolist() == [0.6, 0.5, 0.4]
    assert (
        own.get_xdata().tolist(),
        own.get_ydata().tolist(),
    ) == ([14.0], [0.5])
    assert entropy.get_ylim() == (0, 1)
    assert picture.axes[0].get_yscale() == picture.axes[0].get_xscale() == "log"
    assert {"queries" in axes.get_title(loc="left") for axes in picture.axes} == {True, False}


def test_memory_scale_refuses_what_cannot_be():
    for change, message in (
        ({"entropy": [0.5, 1.2, 0.1]}, r"entropy: 0.1 … 1.2"),
        ({"key_gradient": [0.0, 1, 1]}, "wants positive values"),
        ({"logit_std": [1.0]}, "1 values for 3 factors"),
    ):
        with pytest.raises(WorkbookError, match=message):
            plot_memory_scale({"healthy": memory_curves(**change)})


def test_a_loss_has_one_colour_everywhere():
    axes = plot_loss_shares(ARMS).axes[0]
    from matplotlib.colors import to_hex

    assert [to_hex(axes.patches[2 * index].get_facecolor()).upper() for index in range(3)] == [
        LOSS_COLOURS[loss] for loss in SHARE
    ]
    assert np.unique(list(LOSS_COLOURS.values())).size == 4
