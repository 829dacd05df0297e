"""The findings page, from verdict files alone: what was asked, what was found, by which number,
what would refute it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from tts_workbook.pages.rendering import html_table

MARKS = {"supported": "✔ supported", "refuted": "✘ refuted", "undecided": "? undecided"}
# The items of the findings in their order: id -> (where they stand there, what they say).
SEED_ITEMS: dict[str, tuple[str, str]] = {
    "garbage_audio": (
        "problem",
        "After training with mel loss reaching 0.40, the generated audio is garbage.",
    ),
    "theory_1": (
        "theory 1",
        (
            "Batch size effects: with batch size 1 the gradient is much noisier; repeat the same"
            " sample."
        ),
    ),
    "theory_2": (
        "theory 2",
        "The custom duration initialisation (bias 1.79, weight x 0.01) broke learning.",
    ),
    "theory_3": (
        "theory 3",
        "The learning rate 7e-5 is too low for a single sample; try 7e-5 x sqrt(32) = 4e-4.",
    ),
    "theory_4": ("theory 4", "Weight decay 0.01 prevents overfitting; try 0."),
    "theory_5": (
        "theory 5",
        "Teacher forcing: the decoder does not learn to transform the encoder's output.",
    ),
    "step_1": (
        "next step 1",
        "Run the updated overfit test, with the custom initialisation removed.",
    ),
    "step_2": (
        "next step 2",
        "Learning rate 5e-4, weight decay 0, batch size > 1 by duplicating the sample.",
    ),
    "step_3": (
        "next step 3",
        "Check gradients on the encoder, both mel projections and the whole decoder.",
    ),
    "step_4": (
        "next step 4",
        "Compare the gradients of one step of real training with one of the overfit test.",
    ),
    "question_1": (
        "question 1",
        "Why does the mel loss fall in real training but not in the overfit test?",
    ),
    "question_2": ("question 2", "Is there something about batch size 1 that breaks learning?"),
    "question_3": ("question 3", "Are gradients flowing correctly through the decoder?"),
    "question_4": ("question 4", "Is the learning rate appropriate for batch size 1?"),
    "difference_initialisation": ("difference 1", "Custom duration predictor initialisation."),
    "difference_batch_size": ("difference 2", "Batch size 1 against 32."),
    "difference_gradient_checkpointing": (
        "difference 3",
        "Gradient checkpointing is off in the overfit test.",
    ),
    "fixed_mixed_precision": ("now fixed 1", "Mixed precision."),
    "fixed_grad_scaler": ("now fixed 2", "GradScaler."),
    "fixed_loss_fp32": ("now fixed 3", "Loss computation, with BCE in FP32."),
    "fixed_optimizer_settings": ("now fixed 4", "AdamW with lr 7e-5 and weight decay 0.01."),
    "fixed_clipping": ("now fixed 5", "Gradient clipping at 1.0."),
    "fixed_zero_grad": ("now fixed 6", "zero_grad(set_to_none=True)."),
    "suspect_1": (
        "suspect 1",
        "A gradient flow issue specific to the decoder/mel prediction path.",
    ),
    "suspect_2": ("suspect 2", "A learning rate / optimisation issue specific to batch size 1."),
    "suspect_3": ("suspect 3", "An initialisation problem that we introduced."),
}
# What the owner of such a model does now: advice, and the verdict that it rests on.
ADVICE: tuple[tuple[str, str, str], ...] = (
    (
        "garbage_audio",
        "supported",
        (
            "Normalise the encoder's output before the decoder attends to it (one LayerNorm), or do"
            " not multiply the embedding by sqrt(width)."
        ),
    ),
    (
        "suspect_1_scale",
        "supported",
        "Measure the standard deviation of the memory: far above 1 is the fault, whatever sets it.",
    ),
    (
        "garbage_audio_layout",
        "supported",
        (
            "Build the history of generation with the very function that training uses: [go, m0 …"
            " m(t-1)]."
        ),
    ),
    (
        "garbage_audio_recipe",
        "supported",
        (
            "Take the ceiling off the mel recipe: copy-synthesis must be intelligible before any"
            " model is."
        ),
    ),
    (
        "overfit_gate",
        "supported",
        (
            "Keep the overfit test on one clip, and judge it free-running, with wrong text beside"
            " right text."
        ),
    ),
    (
        "theory_3_free_running",
        "refuted",
        (
            "Do not look for the cure in the learning rate: it speeds the curve up and leaves the"
            " speech as it is."
        ),
    ),
    (
        "theory_1",
        "refuted",
        "Leave batch size 1 in the overfit test: copies of the clip change nothing that matters.",
    ),
    (
        "theory_2",
        "refuted",
        "Leave the duration initialisation as it is; it does not touch the mel loss.",
    ),
    ("theory_4", "refuted", "Leave weight decay as it is."),
    (
        "diagnosis_planted",
        "supported",
        (
            "Before changing anything in a model of your own: thirty lines of adapter, then"
            " `tts-workbook diagnose`. A falling loss can hide a part that is not trained at all."
        ),
    ),
    (
        "fixed_mixed_precision_trained",
        "refuted",
        "Train in bf16 if it is faster; precision is not the cause.",
    ),
)


def all_items(verdicts: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Every item of every verdict, in order, each with the number of its `notebook`."""
    items = []
    for number, verdict in verdicts.items():
        items += [{**item, "notebook": number} for item in verdict["items"]]
    return items


def tally(items: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """How many items are supported, refuted, undecided."""
    counts = Counter(item["verdict"] for item in items)
    return {name: counts[name] for name in MARKS}


def ruling_on(items: Sequence[Mapping[str, Any]], id: str) -> Mapping[str, Any] | None:
    """The item that rules on `id`: one with an interval before one without, then the one with more
    replications; None if absent.
    """
    same = [item for item in items if item["id"] == id]
    return max(same, key=lambda item: (item["interval"] is not None, item["n"] or 0), default=None)


def seed_rulings(items: Sequence[Mapping[str, Any]]) -> dict[str, Mapping[str, Any] | None]:
    """The ruling on every item of the findings, in their order; None where no notebook of this run
    ruled.
    """
    return {id: ruling_on(items, id) for id in SEED_ITEMS}


def what_to_do_now(items: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
    """(advice, id of the item it rests on), only what the verdicts of this run carry."""
    carried = []
    for id, needed, text in ADVICE:
        item = ruling_on(items, id)
        if item is not None and item["verdict"] == needed:
            carried.append((text, id))
    return carried


def effect_text(item: Mapping[str, Any]) -> str:
    """Effect size with unit, interval or the lack of it, and what was repeated: `3.2 ratio (no
    interval, n = 1 run)`.
    """
    if item["effect"] is None:
        return "not measured"
    unit = f" {item['unit']}" if item["unit"] else ""
    replication = f"n = {item['n']} {item['unit_of_replication']}".rstrip()
    if item["interval"] is None:
        return f"{item['effect']:.3g}{unit} (no interval, {replication})"
    low, high = item["interval"]
    return f"{item['effect']:.3g}{unit} (95 %: {low:.3g} to {high:.3g}, {replication})"


def threshold_text(item: Mapping[str, Any]) -> str:
    """Where the verdict would turn."""
    return "no threshold" if item["threshold"] is None else f"turns at {item['threshold']:.3g}"


RULING_HEADS = ("claim", "verdict", "by which number", "shown in", "what would refute it")
NOT_TESTED = (
    "not tested in this run",
    MARKS["undecided"],
    "not measured",
    "",
    "run all notebooks",
)


def ruling_cells(item: Mapping[str, Any]) -> tuple[str, ...]:
    """What a table says of one ruling, under `RULING_HEADS`."""
    return (
        item["claim"],
        MARKS[item["verdict"]],
        f"{effect_text(item)}; {threshold_text(item)}",
        item["notebook"],
        item["refuting_experiment"],
    )


def findings_html(verdicts: Mapping[str, Mapping[str, Any]]) -> str:
    """Answers of the notebooks and every item, as HTML tables without script; text from files is
    escaped.
    """
    answers = html_table(
        ("notebook", "question", "answer"),
        [(number, verdict["question"], verdict["answer"]) for number, verdict in verdicts.items()],
    )
    rows = [(item["id"], *ruling_cells(item)) for item in all_items(verdicts)]
    return answers + html_table(("item", *RULING_HEADS), rows)


def seed_html(items: Sequence[Mapping[str, Any]]) -> str:
    """The findings' own items in their order, each with the claim that was tested, its ruling and
    its number.
    """
    rows = []
    for id, item in seed_rulings(items).items():
        place, text = SEED_ITEMS[id]
        rows.append((place, text, *(NOT_TESTED if item is None else ruling_cells(item))))
    heads = ("in the findings", "what they say", "claim put to the test", *RULING_HEADS[1:])
    return html_table(heads, rows)


def advice_html(advice: Sequence[tuple[str, str]]) -> str:
    """What to do now, with the item that each line rests on."""
    if not advice:
        return "<p>No verdict of this run carries an advice.</p>"
    return html_table(("do this", "because of"), advice)
