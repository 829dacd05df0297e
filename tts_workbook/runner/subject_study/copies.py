"""Notebook 04 on a subject: do copies of its clips, or padding behind them, change loss or
gradient?
"""

from __future__ import annotations

from tts_workbook.measure.anatomy import movement
from tts_workbook.measure.equivalence import Equivalence, compare_batches
from tts_workbook.runner.subject_study.study import Study, Verdict
from tts_workbook.runner.verdicts import Item
from tts_workbook.subject.isolation import without_dropout
from tts_workbook.viz import plot_duplication

REASON = "it compares copies and batches of our presets; your model's own are above"
COPIES = (2, 4, 8)
PADDING = (1, 8, 0.5)  # frames; below 1 a share of the batch's
COPIES_CLAIM = "without dropout, k copies of every clip have the loss and the gradient of one"
PADDING_CLAIM = "padding behind the clips changes neither loss nor gradient"
SAID = {
    "supported": "change nothing beyond rounding",
    "refuted": "CHANGE loss or gradient",
    "undecided": "change loss or gradient by no more than 16-bit sums may",
}


def study(study: Study) -> Verdict:
    """2, 4 and 8 copies against one, and more and more padding against none, both beside the
    rounding floor.
    """
    copies, copies_item = _copies(study)
    padded, padded_item = _padding(study)
    found = {"copies": copies, "padded frames": padded}
    items = (copies_item, padded_item)
    answer = ". ".join(
        f"{name.capitalize()} {_said(one, item)}" for (name, one), item in zip(found.items(), items)
    )
    metrics = {}
    for name, one in (("copies", copies), ("padding", padded)):
        if one:
            metrics |= {f"{name}_{key}_loss": change.loss for key, change in one.changes.items()}
            metrics |= {
                f"{name}_{key}_gradient": change.gradient for key, change in one.changes.items()
            }
            metrics |= {
                f"{name}_bar": one.bar,
                f"{name}_floor_loss": one.floor.loss,
                f"{name}_floor_gradient": one.floor.gradient,
            }
    return Verdict(f"{answer}.", metrics, items)


def _said(found: Equivalence | None, item: Item) -> str:
    if found is None:
        reason = item.provenance.partition(" = ")[0]
        return f"are {reason}" if reason.startswith("not applicable") else reason
    return (
        f"{SAID[found.verdict]}: {found.largest:.1e} at most, where rounding makes up to"
        f" {found.bar:.1e}"
    )


def _copies(study: Study) -> tuple[Equivalence | None, Item]:
    subject, lab = study.subject, study.lab
    if not subject.has("duplicate"):
        return None, study.absent_item("copies_change_nothing", COPIES_CLAIM, "duplicate")
    found, reason = study.attempt(
        lambda: compare_batches(
            lab, {k: subject.duplicate(lab.batch, k) for k in COPIES}, "duplicate"
        )
    )
    if found is None:
        return None, study.unmeasured("copies_change_nothing", COPIES_CLAIM, reason)
    _show(
        study,
        found,
        "copies",
        f"{study.name}: what k copies of every clip change, dropout off",
        "copies of every clip, k",
        "Relative difference of the total loss and of its whole gradient between k copies and one."
        " Below the red line it is rounding; a loss that sums over clips would stand at k - 1.",
        "\nfrom one copy",
    )
    return found, _item(study, "copies_change_nothing", COPIES_CLAIM, found, "numbers of copies")


def _padding(study: Study) -> tuple[Equivalence | None, Item]:
    if not study.subject.has("pad"):
        return None, study.absent_item("padding_changes_nothing", PADDING_CLAIM, "pad")
    found, reason = study.attempt(lambda: _padded(study))
    if found is None:
        return None, study.unmeasured("padding_changes_nothing", PADDING_CLAIM, reason)
    _show(
        study,
        found,
        "padding",
        f"{study.name}: what padding behind the clips changes, dropout off",
        "padded frames appended",
        "Relative difference of the total loss and of its whole gradient between a padded batch and"
        " the batch as it is. Below the red line it is rounding; a loss that averages over padding"
        " falls with every frame appended.",
        "\nfrom no padding",
    )
    return found, _item(
        study, "padding_changes_nothing", PADDING_CLAIM, found, "amounts of padding"
    )


def _padded(study: Study) -> Equivalence:
    """Loss and gradient by padded frames; how far the prediction moves is printed."""
    lab, n_frames = study.lab, study.lab.target.shape[1]
    amounts = [int(n) if n >= 1 else max(16, int(n * n_frames)) for n in PADDING]
    batches = {n: study.subject.pad(lab.batch, n) for n in amounts}
    found = compare_batches(lab, batches, "pad")
    with without_dropout(lab.model):
        own = lab.predict(lab.model)
        moved = {
            n: float(movement(lab.predict(lab.model, batch)[:, :n_frames], own, lab).max())
            for n, batch in batches.items()
        }
    print(
        "largest move of a valid frame of the prediction, in deviations of the target, by padded"
        " frames: " + ", ".join(f"{n}: {value:.1e}" for n, value in moved.items())
    )
    return found


def _show(
    study: Study,
    found: Equivalence,
    name: str,
    title: str,
    x_label: str,
    caption: str,
    against: str,
) -> None:
    for key, change in found.changes.items():
        print(
            f"{name}, {key}: loss {change.loss:.1e}, gradient {change.gradient:.1e}; bar"
            f" {found.bar:.1e}"
        )
    print(
        f"rounding floor, every weight off by 1e-6 of itself: loss {found.floor.loss:.1e}, gradient"
        f" {found.floor.gradient:.1e}"
    )
    series = {
        "loss": {key: change.loss for key, change in found.changes.items()},
        "whole gradient": {key: change.gradient for key, change in found.changes.items()},
        "rounding floor": dict.fromkeys(found.changes, found.floor.largest),
    }
    study.book.save_figure(
        plot_duplication(
            {"total loss": {"bar": found.bar, "differences": series}},
            title,
            x_label,
            f"relative difference{against}",
        ),
        f"subject_{name}",
        caption,
    )


def _item(study: Study, id: str, claim: str, found: Equivalence, repeated: str) -> Item:
    return study.item(
        id,
        claim,
        found.verdict,
        "a batch, or weights later in training, at which loss or gradient differ by more than"
        " the bar",
        effect=found.largest,
        unit="largest relative difference",
        threshold=found.bar,
        n=len(found.changes),
        unit_of_replication=f"{repeated}, one set of weights",
    )
