"""One colour per name, the same in every figure."""

from tts_workbook.viz.style import COLOURS, SPARE_COLOURS, colours_of, lighter


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
    chosen = colours_of(names, like={"healthy, seed layout": "healthy"})
    assert {name: chosen[name] for name in ("healthy", "no_norm", "seed")} == {
        name: COLOURS[name] for name in ("healthy", "no_norm", "seed")
    }
    assert chosen["Free-running"] == COLOURS["free-running"]
    assert chosen["healthy, seed layout"] == lighter(COLOURS["healthy"], 1)
    assert len(set(chosen.values())) == len(names)


def test_a_colour_is_given_by_the_whole_name_or_by_a_field_never_by_how_a_text_begins():
    names = ["seed", "seeds 0 to 4", "targets scaled", "mine"]
    assert colours_of(names) == {
        "seed": COLOURS["seed"],
        "seeds 0 to 4": SPARE_COLOURS[0],
        "targets scaled": SPARE_COLOURS[1],
        "mine": SPARE_COLOURS[2],
    }
    assert colours_of(["mine"], like={"mine": "no_norm"}) == {"mine": COLOURS["no_norm"]}
