"""Notebook 02 on a subject: one step seen from every module, and the one-step experiments of the
diagnosis.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from tts_workbook.diagnosis.diagnosis_report import merged
from tts_workbook.faults.examine import examine
from tts_workbook.faults.finding import Finding
from tts_workbook.faults.registry import CATALOGUE, CAUSES
from tts_workbook.measure.module_audit import ModuleAudit, audit_modules
from tts_workbook.pages.diagnosis_tables import numbers_text
from tts_workbook.runner.subject_study.study import Study, Verdict
from tts_workbook.runner.verdicts import Item
from tts_workbook.viz import plot_gradient_norms, plot_loss_shares, plot_update_ratios

REASON = "it takes a step of our presets apart; your model's step is above"
# causes that one step, or one evaluation of the losses, can show
ONE_STEP = (
    "loop.no_step",
    "loop.no_zero_grad",
    "loop.accumulation",
    "optimizer.missing_parameters",
    "precision.low_precision_weights",
    "precision.mask_overflow",
    "precision.scaler_skips",
    "precision.clip_before_unscale",
    "loop.checkpointing",
    "loop.weights_not_loaded",
    "loss.wrong_reduction",
    "loss.padding_included",
    "model.padding_mask",
    "loss.detached",
    "loss.logged_not_optimised",
)
# of the claim that the fault is absent
VERDICTS = {"confirmed": "refuted", "excluded": "supported"}


def study(study: Study) -> Verdict:
    """Gradient norms, updates and shares per module, then every one-step experiment with its
    evidence.
    """
    audit = audit_modules(study.lab)
    _draw(study, audit)
    findings = one_step_findings(study)
    for found in findings:
        print(f"{found.level:14s} {found.cause:32s} {found.where or '-'}\n    {evidence_of(found)}")
    items = (_reached(study, audit), *(_item(study, found) for found in findings))
    return Verdict(_answer(audit, findings), _metrics(audit), items)


def one_step_findings(study: Study) -> tuple[Finding, ...]:
    """A finding of each cause that one step can show, strongest first."""
    found: list[Finding] = []
    with study.book.progress(len(ONE_STEP), "one-step experiments") as progress:
        for index, cause in enumerate(ONE_STEP, start=1):
            progress.update(index, CAUSES[cause].title)
            found.append(examine(CAUSES[cause], study.lab))
    return merged(found)


def evidence_of(found: Finding) -> str:
    """What was run and the numbers of it, in one line."""
    return f"{found.experiment}: {numbers_text(found)}" if found.evidence else found.experiment


def _draw(study: Study, audit: ModuleAudit) -> None:
    book, norms = (
        study.book,
        {name: _finite(audit.norm[name]) for name in (*audit.mel_terms, "total")},
    )
    kinds = {name: values for name, values in norms.items() if values}
    print(
        f"{audit.n_trained} trained tensors in {len(audit.modules)} modules; without a gradient of"
        f" the total: {', '.join(audit.unreached) or 'none'}"
    )
    if kinds:
        book.save_figure(
            plot_gradient_norms(kinds, f"{study.name}: gradient of one step, fresh weights"),
            "subject_gradient",
            f"Norm of the gradient per module of {' and '.join(kinds)}, before any clip, dropout"
            " off. A cross at the left end is a gradient of exactly zero: that loss does not reach"
            " the module.",
        )
    else:
        print("gradient: no module has a finite one")
    if _finite(audit.update_ratio):
        book.save_figure(
            plot_update_ratios(
                {study.name: _finite(audit.update_ratio)}, f"{study.name}: size of the first update"
            ),
            "subject_update",
            "How far the subject's first optimiser step moves each module, relative to its "
            "weights. Grey: where training usually goes well; a cross: a module that does not"
            " move.",
        )
    else:
        print("update ratio: no optimiser step with finite weights was seen, so there is none")
    if audit.shared:
        share = {
            term: {path: audit.share[term][path] for path in audit.shared} for term in audit.terms
        }
        cosine = {
            pair: {path: value for path, value in values.items() if path in audit.shared}
            for pair, values in audit.cosine.items()
        }
        arm = {study.name: {"share": share, "cosine": cosine}}
        book.save_figure(
            plot_loss_shares(arm, f"{study.name}: who pulls where", audit.shared),
            "subject_shares",
            "Modules that more than one loss reaches: each loss's share of the sum of the weighted"
            " gradients' norms, and the cosine between losses. Weights are those found in the"
            " total's own gradient: "
            + ", ".join(f"{term} × {weight:.3g}" for term, weight in audit.weights.items())
            + ".",
        )
    else:
        print("share of each loss: no module is reached by two losses")


def _finite(values: Mapping[str, float]) -> dict[str, float]:
    return {name: value for name, value in values.items() if math.isfinite(value)}


def _answer(audit: ModuleAudit, findings: tuple[Finding, ...]) -> str:
    n_missed = len(audit.unreached)
    reached = (
        "the gradient is not finite"
        if not _finite(audit.norm["total"])
        else (
            f"the gradient reaches all {audit.n_trained} trained tensors"
            if not n_missed
            else (
                f"the gradient misses {n_missed} of {audit.n_trained} trained tensors,"
                f" {audit.unreached[0]} first"
            )
        )
    )
    moves = _finite(audit.update_ratio).values()
    moved = (
        f"its first update is {min(moves):.1e} to {max(moves):.1e} of the weights, by module"
        if moves
        else "no optimiser step was seen"
    )
    named = {
        level: [found.cause for found in findings if found.level == level]
        for level in ("confirmed", "suspected")
    }
    blamed = "; ".join(f"{level}: {', '.join(causes)}" for level, causes in named.items() if causes)
    ruled_out = sum(found.level == "excluded" for found in findings)
    return (
        f"At fresh weights {reached}, and {moved}. Of {len(findings)} faults that one step can"
        f" show, {ruled_out} are ruled out"
        + (f". {blamed[0].upper()}{blamed[1:]}." if blamed else " and none is found.")
    )


def _metrics(audit: ModuleAudit) -> dict[str, float]:
    moves = _finite(audit.update_ratio).values()
    return {
        "trained_tensors": audit.n_trained,
        "unreached_tensors": len(audit.unreached),
        "unexplained_share_of_total": audit.unshown,
        **{
            f"gradient_norm_{name}": math.hypot(*norms.values())
            for name, norms in audit.norm.items()
        },
        **{f"weight_{term}": weight for term, weight in audit.weights.items()},
        **(
            {"smallest_update_ratio": min(moves), "largest_update_ratio": max(moves)}
            if moves
            else {}
        ),
    }


def _reached(study: Study, audit: ModuleAudit) -> Item:
    verdict = (
        "refuted"
        if audit.unreached
        else "supported"
        if _finite(audit.norm["total"])
        else "undecided"
    )
    return study.item(
        "gradient_reaches_everything",
        "the loss reaches every trained tensor that is not declared frozen",
        verdict,
        "a tensor without a gradient in a later step, or with another batch",
        effect=len(audit.unreached),
        unit="tensors without a gradient",
        threshold=1,
    )


def _item(study: Study, found: Finding) -> Item:
    """The claim that a fault of the catalogue is absent."""
    # which its experiment says itself
    level = "" if found.level == "not applicable" else f"{found.level}. "
    where = f" (looked for at {found.where})" if found.where else ""
    return study.item(
        found.cause.replace(".", "_"),
        f"this fault is absent: {CATALOGUE[found.cause].title}{where}",
        VERDICTS.get(found.level, "undecided"),
        f"on another batch, or later in training: {CATALOGUE[found.cause].experiment}",
        provenance=level
        + evidence_of(found)
        + (f". Fix: {found.fix}" if found.level == "confirmed" else ""),
    )
