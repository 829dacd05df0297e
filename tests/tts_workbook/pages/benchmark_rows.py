"""Rows of a benchmark that never ran, and the record that they make."""

from tts_workbook.diagnosis.benchmark_scores import Cell, Row, score

PROVENANCE = {
    "command": "python benchmarks/diagnosis.py",
    "commit": "abc",
    "device": "cpu",
    "date": "2026-11-24",
    "versions": {"torch": "2"},
    "seconds": 3600,
}


def row(
    fault="model.text_ignored", first=None, seed=2, architecture="ours", kind="fault", **changes
) -> Row:
    """A run that names `first` (the planted fault itself where it is None, nothing where it is
    empty).
    """
    named = fault if first is None else first
    confirmed = (named,) if named else ()
    values = dict(
        cell=Cell(architecture, kind, fault, seed),
        confirmed=confirmed,
        suspected=(),
        healthy=False,
        passed=False,
        headline={},
        baselines={"gradient norm": False},
        harm="TF 0.2 -> 0.9",
        seconds=30.0,
    )
    return Row(**{**values, **changes})


def sound(number, **changes) -> Row:
    """A clean run that passes the gate and is called healthy."""
    return row(
        str(number),
        first="",
        seed=100 + number,
        kind="clean",
        **{"passed": True, "healthy": True, "harm": "", **changes},
    )


def full_rows() -> list[Row]:
    """Three architectures, one miss, one masked plant, 40 sound runs, an outside fault, 20
    pairs.
    """
    faults = (
        "model.text_ignored",
        "model.encoder_detached",
        "optimizer.lr_too_small",
        "loop.no_step",
    )
    rows = [
        row(fault, seed=seed, architecture=name)
        for fault in faults
        for seed in (0, 2, 3)
        for name in ("ours", "tacotron2", "gru")
    ]
    rows += [
        row("data.token_collapse", first="model.text_ignored"),
        row("data.silence", first="", harm=""),
    ]
    rows += [sound(number) for number in range(40)] + [row("ascent", first="", kind="outside")]
    pair = "model.text_ignored & loop.no_step"
    return rows + [
        row(pair, first="loop.no_step", suspected=("model.text_ignored",), kind="pair")
        for _ in range(20)
    ]


def record_of(rows, **provenance) -> dict:
    """What benchmarks/diagnosis.py writes."""
    return {
        "provenance": {**PROVENANCE, **provenance},
        "held_out": ["gru"],
        "scores": score(rows),
        "rows": [one.to_dict() for one in rows],
    }
