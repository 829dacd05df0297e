"""One colour per name, the same in every figure."""

from tts_workbook.viz.style import COLOURS, colours_of


def test_colours_are_fixed_for_known_names_and_never_twice_in_a_picture():
    names = [
        "healthy",
        "no_norm",
        "healthy, seed layout",
        "seed",
        "Free-running",
        "mine",
        "mine too",
    ]
    chosen = colours_of(names)
    assert {name: chosen[name] for name in ("healthy", "no_norm", "seed")} == {
        name: COLOURS[name] for name in ("healthy", "no_norm", "seed")
    }
    assert chosen["Free-running"] == COLOURS["free-running"]
    assert len(set(chosen.values())) == len(names)
