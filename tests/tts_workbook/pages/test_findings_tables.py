"""The findings page says what the verdict files say, and nothing runs in it."""

from tts_workbook.pages.findings_tables import all_items, effect_text, findings_html, tally
from tts_workbook.runner.notebook import Item


def verdicts(**changes):
    item = Item(
        id="claim_1",
        claim="it overfits",
        verdict="supported",
        effect=0.0716,
        unit="FR mel L1",
        n=1,
        unit_of_replication="run",
        threshold=0.388,
        refuting_experiment="another seed",
    )
    return {
        "03": {
            "question": "Can it?",
            "answer": "Yes: 0.0716.",
            "items": [{**item.to_dict(), **changes}],
        }
    }


def test_the_tally_follows_the_verdicts():
    assert tally(all_items(verdicts())) == {"supported": 1, "refuted": 0, "undecided": 0}
    assert tally(all_items(verdicts(verdict="refuted"))) == {
        "supported": 0,
        "refuted": 1,
        "undecided": 0,
    }
    assert all_items(verdicts())[0]["notebook"] == "03"


def test_an_effect_never_hides_that_it_has_no_interval():
    item = all_items(verdicts())[0]
    assert effect_text(item) == "0.0716 FR mel L1 (no interval, n = 1 run)"
    assert (
        effect_text({**item, "interval": [0.06, 0.09]})
        == "0.0716 FR mel L1 (95 %: 0.06 to 0.09, n = 1 run)"
    )
    assert effect_text({**item, "effect": None}) == "not measured"


def test_the_page_shows_claim_number_threshold_and_refutation_and_escapes_all_of_them():
    page = findings_html(verdicts(claim="<script>alert(1)</script>"))
    assert "<script" not in page and "&lt;script&gt;alert(1)" in page
    for text in ("Can it?", "Yes: 0.0716.", "supported", "turns at 0.388", "another seed", "03"):
        assert text in page
    assert "✘ refuted" in findings_html(verdicts(verdict="refuted"))
