"""Controls without a browser: setting a value is moving the control, and what is shown is read from
the widgets.
"""

import sys

import ipywidgets
import pytest

from tts_core import WorkbookError
from tts_workbook.kernel_protocol import RUNNER_VARIABLE
from tts_workbook.viz import choose, clip_card, play, plot_baselines, scrub, sweep_explorer


def picture(number):
    return plot_baselines({"best constant": 1.0, "this": float(number)})


def shown(interactive):
    """Class and value of each part on the screen."""
    return [(type(child).__name__, child.value) for child in interactive.screen.box.children]


def test_the_scrubber_shows_the_first_step_and_then_the_one_it_is_moved_to():
    calls = []
    slider = scrub([40, 1, 7, 7], lambda step: calls.append(step) or picture(step))
    assert [value for _, value in slider.control.options] == [
        1,
        7,
        40,
    ]
    assert slider.control.value == 1
    ((kind, first),) = shown(slider)
    assert kind == "Image" and first == picture(1).png()
    slider.control.value = 40
    assert shown(slider) == [("Image", picture(40).png())] != [("Image", first)]
    slider.control.value = 1
    assert shown(slider) == [("Image", first)] and calls == [1, 40]  # drawn once each


def test_the_chooser_shows_pictures_players_and_text():
    parts = {
        "picture": picture(2),
        "player": play([0.1] * 8000, 8000, "tone"),
        "text": "a < b",
        "row": [picture(2), "below"],
    }
    menu = choose(parts, lambda part: part, label="part")
    seen = {}
    for index, name in enumerate(parts):
        menu.control.value = index
        seen[name] = shown(menu)
    assert seen["picture"] == [("Image", picture(2).png())]
    assert seen["player"][0][0] == "HTML" and "<audio" in seen["player"][0][1]
    assert "a &lt; b" in seen["text"][0][1]
    assert [kind for kind, _ in seen["row"]] == ["Image", "HTML"]


def test_a_menu_takes_plain_texts_and_equal_labels_stay_apart():
    menu = choose(["one", "two", "one"], lambda name: name.upper())
    menu.control.value = 1
    assert "TWO" in shown(menu)[0][1]
    with pytest.raises(WorkbookError, match="no options"):
        choose([], str)
    with pytest.raises(WorkbookError, match="no steps"):
        scrub([], picture)


def test_a_control_inside_a_control_works_and_is_closed_with_it():
    menu = choose(
        {"plus": 1, "minus": -1}, lambda sign: scrub([1, 2], lambda step: f"{sign * step}")
    )
    (inner,) = [part.content for part in menu.screen._parts]
    inner.control.value = 2
    assert "2</pre>" in inner.screen.box.children[0].value
    alive = inner.control.comm
    menu.control.value = 1
    (other,) = [part.content for part in menu.screen._parts]
    assert other is not inner and "-1</pre>" in other.screen.box.children[0].value
    assert alive is not None and inner.control.comm is None


def test_the_first_draw_raises_and_a_later_error_stands_where_the_picture_was():
    with pytest.raises(ZeroDivisionError):
        scrub([0, 1], lambda step: 1 / step)
    draw = {1: picture, 2: lambda _: 1 / 0, 3: lambda _: plot_baselines({}), 4: picture}
    slider = scrub([1, 2, 3, 4], lambda step: draw[step](step))
    assert slider.screen.error == ""
    slider.control.value = 2
    assert "ZeroDivisionError" in slider.screen.error and "Traceback" in slider.screen.error
    slider.control.value = 3
    assert "there is nothing to draw" in slider.screen.error
    assert "Traceback" not in slider.screen.error
    slider.control.value = 4
    assert slider.screen.error == "" and shown(slider) == [("Image", picture(4).png())]


def test_the_sweep_explorer_opens_the_result_behind_a_cell():
    results = {("wd 0", "lr 1e-3"): 0.5, ("wd 0", "lr 1e-4"): 2.0, ("wd 0.01", "lr 1e-3"): 0.25}
    grid = sweep_explorer(
        results, lambda result: f"trial {result}", lambda result: 10 * result, label="FR mel L1"
    )
    buttons = [cell for cell in grid.control.children if isinstance(cell, ipywidgets.Button)]
    assert [button.description for button in buttons] == ["5.00", "20.0", "2.50"]
    # with a header row and an empty pair
    assert len(grid.control.children) == 3 * 3
    assert len({button.style.button_color for button in buttons}) == 3  # a heatmap
    assert "trial 0.5" in shown(grid)[0][1]
    assert buttons[0].layout.border_top != buttons[1].layout.border_top
    buttons[2].click()
    assert "trial 0.25" in shown(grid)[0][1] and buttons[2].layout.border_top.startswith("3px")
    with pytest.raises(WorkbookError, match="not finite"):
        sweep_explorer({("a", "b"): float("nan")}, str)


@pytest.mark.parametrize(
    "make",
    (
        lambda draw: scrub([1, 2], draw),
        lambda draw: choose({"a": 1}, draw),
        lambda draw: sweep_explorer({("a", "b"): 1}, draw),
    ),
)
def test_under_the_runner_the_first_state_is_drawn_and_one_line_stands_for_the_widget(
    make, monkeypatch
):
    monkeypatch.setenv(RUNNER_VARIABLE, "{}")
    monkeypatch.setitem(sys.modules, "ipywidgets", None)  # none is made, none is needed
    calls = []
    interactive = make(lambda value: calls.append(value) or picture(value))
    assert calls == [1]
    bundle = interactive._repr_mimebundle_()
    assert list(bundle) == ["text/plain"]
    assert "open this notebook in JupyterLab" in bundle["text/plain"]
    with pytest.raises(ZeroDivisionError):
        make(lambda value: 1 / 0)


def test_for_a_person_the_widget_is_displayed_and_its_text_is_one_line():
    bundle = scrub([1, 2], picture)._repr_mimebundle_()
    assert "application/vnd.jupyter.widget-view+json" in bundle
    assert (
        bundle["text/plain"]
        == "slider over 2 values of step: open this notebook in JupyterLab to use it"
    )


def test_without_ipywidgets_the_error_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "ipywidgets", None)
    with pytest.raises(WorkbookError, match="notebooks extra"):
        scrub([1], picture)


def test_a_clip_card_is_its_picture_and_its_player(librivox):
    drawn, player = clip_card(librivox.clips[0], hop_length=256)
    assert len(drawn.axes) >= 3 and librivox.clips[0].text.split()[0] in player.html
