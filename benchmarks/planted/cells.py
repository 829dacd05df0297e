"""Which runs the benchmark has: architectures, faults and seeds, and the subject of each.

Nothing here looks at a result: what is planted is settled before the diagnosis is asked.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from benchmarks.planted.architecture import Architecture, draw_setting
from tts_workbook.diagnosis.benchmark_scores import SCORED, TUNING, Cell, Kind
from tts_workbook.faults.planting import Setting
from tts_workbook.faults.registry import CAUSES
from tts_workbook.subject.subject import Subject

N_CLEAN = 45  # some of which may not pass the overfit gate: 40 have to be left


def clean_settings(n: int = N_CLEAN) -> list[dict[str, Any]]:
    """What varies over the clean runs: optimiser, warm-up, dropout, bf16, batch size, tying,
    declared freezing.
    """
    settings = []
    for number in range(n):
        stream = random.Random(f"clean {number}")
        settings.append(
            {
                "optimizer": ("adamw", "adam", "sgd")[(number + number // 3) % 3],
                "warmup": stream.choice((0, 0, 20)),
                "dropout": stream.choice((0.0, 0.1, 0.2, 0.3)),
                "bf16": stream.random() < 0.25,
                "batch_size": stream.choice((1, 2, 4, 8)),
                "tied": stream.random() < 0.25,
                "frozen": stream.random() < 0.25,
            }
        )
    return settings


def cells(
    architectures: Mapping[str, Architecture],
    held_out: Iterable[str],
    seeds: Sequence[int],
    kinds: Iterable[Kind] = ("fault", "clean", "outside", "pair"),
    n_clean: int = N_CLEAN,
    n_pairs: int = 20,
) -> list[Cell]:
    """Every cell, in an order in which an early stop leaves something of everything."""
    kinds, names = set(kinds), list(architectures)
    others = [
        Cell(names[number % len(names)], "clean", str(number), 100 + number)
        for number in range(n_clean)
        if "clean" in kinds
    ]
    if "pair" in kinds:
        others += [
            Cell(name, "pair", pair, SCORED[0]) for name, pair in pairs(architectures, n_pairs)
        ]
    found: list[Cell] = []
    for seed in seeds:
        for name, architecture in architectures.items():
            if name in held_out and seed not in SCORED:
                continue
            if "fault" in kinds:
                found += [
                    Cell(name, "fault", fault, seed)
                    for fault in CAUSES
                    if fault in architecture.plants
                ]
            if "outside" in kinds and seed in (TUNING[0], SCORED[0]):
                found += [Cell(name, "outside", fault, seed) for fault in architecture.outside]
        if seed in SCORED:
            found, others = found + others, []
    return found + others


# The first of a pair: faults whose sign does not hang on a training that goes well.
STANDING = (
    "data.token_collapse",
    "data.duration_sum",
    "data.mel_recipe",
    "data.sample_rate",
    "data.stale_features",
    "data.unnormalised_target",
    "model.memory_scale",
    "model.no_causal_mask",
    "model.no_right_shift",
    "model.padding_mask",
    "model.text_ignored",
    "model.encoder_detached",
    "model.positions",
    "model.dropout_always_on",
    "model.output_range",
    "loss.padding_included",
    "loss.imbalance",
    "loss.wrong_reduction",
    "loss.detached",
    "loss.logged_not_optimised",
    "generation.layout",
)


def pairs(architectures: Mapping[str, Architecture], n: int) -> list[tuple[str, str]]:
    """(architecture, "a & b"): one that stands whatever training does, with one of the training,
    drawn at random.
    """
    stream = random.Random("pairs")
    names = [name for name, architecture in architectures.items() if architecture.layers]
    drawn: list[tuple[str, str]] = []
    while names and len(drawn) < n:
        name = names[len(drawn) % len(names)]
        first = stream.choice([fault for fault in STANDING if fault in architectures[name].plants])
        second = stream.choice(sorted(architectures[name].layers))
        pair = name, f"{first} & {second}"
        if pair not in drawn:
            drawn.append(pair)
    return drawn


def setting_of(architecture: Architecture, cell: Cell) -> Setting:
    """The setting of a cell and of its clean twin: what the fault needs in order to matter is part
    of it.
    """
    if cell.kind == "clean":
        return draw_setting(
            cell.seed,
            max_seconds=architecture.max_seconds,
            **clean_settings(int(cell.fault) + 1)[int(cell.fault)],
        )
    needed: dict[str, Any] = {}
    for fault in cell.fault.split(" & ") if cell.kind != "outside" else ():
        needed |= architecture.required(fault)
    return draw_setting(cell.seed, max_seconds=architecture.max_seconds, **needed)


def build(architecture: Architecture, cell: Cell) -> Subject:
    """The subject of a cell."""
    setting = setting_of(architecture, cell)
    if cell.kind == "clean":
        return architecture.clean(setting)
    if cell.kind == "pair":
        first, second = cell.fault.split(" & ")
        return architecture.layers[second](architecture.plants[first], setting)
    return (architecture.plants if cell.kind == "fault" else architecture.outside)[cell.fault](
        setting
    )
