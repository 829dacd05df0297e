"""Checks of what goes into the model: text, tokens, durations, features, and whether the batch
holds still.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from tts_workbook.faults.checks.registry import check
from tts_workbook.faults.finding import Finding
from tts_workbook.lab.lab import Lab
from tts_workbook.lab.short_run import Change
from tts_workbook.measure.seen_clips import (
    clips_of,
    distinct_clips,
    is_variant,
    pairing,
    seen_batches,
    silent_ends,
)
from tts_workbook.subject.isolation import private_copy, tensors_in
from tts_workbook.subject.module_calls import text_embeddings
from tts_workbook.subject.subject import Batch, SubjectError

# Pairing: of honest short clips the z is 5 or more from 6 clips on (with durations; of one voice 8
# or more) and 3.6 or more from 12 on (without); re-paired ones are random there, with deviation 1.
LEAST_CLIPS = {True: 6, False: 12}  # with durations, without
PAIRED_Z = {True: 4.0, False: 3.0}  # from here on the pairing holds
UNPAIRED_Z = {True: 2.5, False: 1.5}  # below here it does not
# share of variance that an honest text explains beyond a re-paired one, at least
HONEST_GAIN = {True: 0.2, False: 0.06}
POWER_Z = 4.0  # standard deviations that this gain has to be worth

# of the text positions whose symbol cannot be told from its token; two rare symbols are less
COLLAPSED_SHARE = 0.02
# of the clip at its ends; short clips of read speech have 0.04 (median) to 0.22 (largest)
SILENT_SHARE = 0.35
SILENCE_HARM = 1.1  # error on the speech, over that of the trimmed twin
# of the clips of `batches` that are the batch's or variants of them: a corpus has other clips
OWN_SHARE = 0.9
VARIANT_SHARE = 0.25  # that are variants
VARYING_HARM = 1.15  # final TF over that of the batch held fixed


@check("data.text_audio_pairing", needs=("symbols",))
def text_audio_pairing(lab: Lab) -> Iterable[Finding]:
    """Frames of left-out clips from the symbols spoken, against the same with texts re-paired at
    random.
    """
    # a text once
    clips = {clip.symbols: clip for clip in distinct_clips(lab) if clip.symbols}.values()
    timed = all(
        clip.durations is not None
        and len(clip.durations) == len(clip.symbols)
        and clip.durations.sum() > 0
        for clip in clips
    )
    if len(clips) < 4:
        return [
            Finding(
                "data.text_audio_pairing",
                "undecided",
                f"{len(clips)} clips are too few to tell; supply "
                f"Subject.batches with {LEAST_CLIPS[timed]} different ones",
                {"clips": len(clips)},
            )
        ]
    found = pairing(
        [_true_frames(lab, clip) for clip in clips],
        [clip.symbols for clip in clips],
        [clip.durations for clip in clips] if timed else None,
    )
    power = HONEST_GAIN[timed] / max(found.deviation, 1e-6)
    evidence = {
        "variance explained": found.explained,
        "re-paired at random": found.repaired,
        "standard deviations apart": found.z,
        "clips": found.n_clips,
        "standard deviations an honest text would gain": power,
    }
    experiment = (
        "frames of each clip predicted from its symbols by the other clips, 40 random re-pairings"
        " for comparison"
    )
    if found.z > PAIRED_Z[timed]:
        level = "excluded"
    elif found.z < UNPAIRED_Z[timed] and len(clips) >= LEAST_CLIPS[timed] and power > POWER_Z:
        level = "confirmed"
    else:
        level, experiment = (
            "undecided",
            f"{experiment}; more clips in Subject.batches, or Subject.durations, would tell",
        )
    return [
        Finding(
            "data.text_audio_pairing",
            level,
            experiment,
            evidence,
            "symbols",
            1.0 if level == "confirmed" else 0.0,
        )
    ]


def _true_frames(lab: Lab, clip) -> np.ndarray:
    """Frames (T, M) of the clip's own audio where they can be computed (a spoilt cache is another
    cause), else the target's.
    """
    if lab.subject.has("audio", "features"):
        return lab.subject.features(*clip.audio).detach().float().cpu().numpy()
    return clip.frames.numpy()


# --- tokens ---------------------------------------------------------------------------------------


@check("data.token_collapse", needs=("symbols",))
def token_collapse(lab: Lab) -> Iterable[Finding]:
    """Symbols as written against the ids that enter the text embeddings (else, that the batch
    holds): one id, one symbol.
    """
    tokens: dict[str, dict[tuple[int, ...], int]] = {}
    wheres = []
    for batch in (lab.batch, *seen_batches(lab)):
        where, rows = _token_rows(lab, batch)
        wheres.append(where)
        for text, row in zip(lab.subject.symbols(batch), rows):
            for symbol, token in zip(text, row):
                counts = tokens.setdefault(str(symbol), {})
                counts[token] = counts.get(token, 0) + 1
    if not tokens or not wheres[0]:
        return [
            Finding(
                "data.token_collapse",
                "undecided",
                "no whole numbers line up with the symbols: the text enters "
                "neither by an nn.Embedding nor as ids in the batch",
            )
        ]
    of_token: dict[tuple[int, ...], dict[str, int]] = {}
    for symbol, counts in tokens.items():
        token = max(counts, key=counts.get)
        of_token.setdefault(token, {})[symbol] = sum(counts.values())
    positions = sum(sum(symbols.values()) for symbols in of_token.values())
    merged = {
        token: symbols
        for token, symbols in of_token.items()
        if len({_kind(symbol) for symbol in symbols}) > 1
    }
    lost = (
        sum(sum(symbols.values()) - max(symbols.values()) for symbols in merged.values())
        / positions
    )
    evidence = {
        "different symbols": len(tokens),
        "different tokens": len(of_token),
        "positions that cannot be told apart": lost,
    }
    experiment = "symbols as written against the ids of the same positions"
    if not merged:
        return [Finding("data.token_collapse", "excluded", experiment, evidence, wheres[0])]
    largest = max(merged.values(), key=len)
    evidence["merged"] = " ".join(sorted(largest)[:12])
    level = "confirmed" if len(largest) > 2 or lost > COLLAPSED_SHARE else "suspected"
    return [
        Finding("data.token_collapse", level, experiment, evidence, wheres[0], min(1.0, 2 * lost))
    ]


def _kind(symbol: str) -> str:
    """What a cleaner may merge on purpose: case, stress digits, and punctuation of any kind."""
    return (
        symbol.casefold().rstrip("0123456789") if any(letter.isalnum() for letter in symbol) else ""
    )


def _token_rows(lab: Lab, batch: Batch) -> tuple[str, list[list[tuple[int, ...]]]]:
    """Where the ids were found, and per clip one tuple of ids for each symbol."""
    texts = lab.subject.symbols(batch)
    calls = lab.calls(lab.model, batch)
    names = text_embeddings(lab.model, calls)
    entered = [call.inputs[0] for call in calls if call.name in names and call.inputs]
    found = [rows for ids in entered if (rows := _lined_up(ids, texts)) is not None]
    where = ", ".join(names)
    if not found:
        counted = lab.subject.durations(batch) if lab.subject.durations else []
        found = [
            rows
            for ids in tensors_in(batch)
            if not ids.is_floating_point()
            and ids.dtype != torch.bool
            and (rows := _lined_up(ids, texts)) is not None
            and not _are(rows, counted)
        ]
        where = "batch"
    if not found:
        return "", []
    return where, [
        [tuple(part[position] for part in parts) for position in range(len(parts[0]))]
        for parts in zip(*found)
    ]


def _are(rows: list[list[int]], counted: Sequence) -> bool:
    """Whether whole numbers are the durations."""
    return len(rows) == len(counted) and all(
        list(row) == [int(count) for count in counts][: len(row)]
        for row, counts in zip(rows, counted)
    )


def _lined_up(ids: Tensor, texts: Sequence[Sequence[str]]) -> list[list[int]] | None:
    """Ids (B, N') of the symbols alone, in the first arrangement in which every symbol has one id:
    as they are, behind a start token, or with blanks in between. None where there is none.
    """
    if ids.ndim != 2 or ids.is_floating_point():
        return None
    for turned in (ids, ids.T):
        if len(turned) != len(texts):
            continue
        for start, step in ((0, 1), (1, 1), (1, 2), (0, 2)):
            rows = [row[start::step][: len(text)].tolist() for row, text in zip(turned, texts)]
            pairs = {
                (symbol, token)
                for text, row in zip(texts, rows)
                for symbol, token in zip(text, row)
            }
            whole = all(len(row) == len(text) for row, text in zip(rows, texts))
            if whole and len(pairs) == len({symbol for symbol, _ in pairs}):
                return rows
    return None


# --- silence --------------------------------------------------------------------------------------


@check("data.silence", needs=("audio",))
def silence(lab: Lab) -> Iterable[Finding]:
    """Silent share at the ends, from the audio; where it is large, the trimmed twin decides, judged
    on the speech alone.
    """
    clips = clips_of(lab, lab.batch)
    ends = [silent_ends(clip) for clip in clips]
    share = statistics.fmean(
        (first + last) / len(clip.frames) for (first, last), clip in zip(ends, clips)
    )
    evidence = {"silent share at the ends": share}
    if share < SILENT_SHARE:
        return [
            Finding(
                "data.silence",
                "excluded",
                "energy at both ends of the audio, 40 dB under the loud frames",
                evidence,
                "audio",
            )
        ]
    if lab.subject.trim is None:
        return [
            Finding(
                "data.silence",
                "suspected",
                "supply Subject.trim: a twin without the silent ends decides",
                evidence,
                "audio",
                share,
            )
        ]
    first, last = min(a for a, _ in ends), min(b for _, b in ends)
    trimmed = Change(
        f"{first} + {last} silent frames trimmed",
        batch=lambda batch: lab.subject.trim(batch, first, last),
    )
    on_all, on_speech = _errors(lab, lab.course().model, first, last)
    _, twin = _errors(
        lab,
        lab.course(trimmed).model,
        first,
        last,
        lab.subject.trim(private_copy(lab.batch), first, last),
    )
    constant = _speech_constant(lab, first, last)
    evidence |= {
        "best constant L1": lab.best_constant,
        "best constant L1 on the speech": constant,
        "TF L1 / best constant": on_all / lab.best_constant,
        "TF L1 / best constant, on the speech": on_speech / constant,
        "TF L1 / best constant, on the speech, trimmed twin": twin / constant,
    }
    # the figure flatters
    hidden = on_speech / constant > SILENCE_HARM * on_all / lab.best_constant
    # the speech is learnt worse
    slower = on_speech > SILENCE_HARM * twin
    level = "confirmed" if hidden or slower else "suspected"
    return [
        Finding(
            "data.silence",
            level,
            "the same model and seeds without the silent ends, judged on the speech",
            evidence,
            "audio",
            share,
        )
    ]


def _errors(
    lab: Lab, model: nn.Module, first: int, last: int, batch: Batch | None = None
) -> tuple[float, float]:
    """L1 over the valid frames of `batch` (else the lab's) and over those between the silent ends;
    a trimmed batch has none.
    """
    target, lengths = lab.subject.target_mel(lab.batch if batch is None else batch)
    error = (lab.predict(model, batch, "mel") - target.detach().float()).abs().mean(dim=2)
    if batch is not None:
        first = last = 0
    whole = torch.cat([row[:length] for row, length in zip(error, lengths.tolist())])
    speech = torch.cat([row[first : length - last] for row, length in zip(error, lengths.tolist())])
    return float(whole.mean()), float(speech.mean())


def _speech_constant(lab: Lab, first: int, last: int) -> float:
    speech = torch.cat(
        [row[first : length - last] for row, length in zip(lab.target, lab.lengths.tolist())]
    )
    return float((speech - speech.quantile(0.5, dim=0)).abs().mean())


# --- a batch that changes -------------------------------------------------------------------------


@check("data.batch_varies", needs=("batches",))
def batch_varies(lab: Lab) -> Iterable[Finding]:
    """Hashes of the clips that training sees; where they are variants of the batch's, a paired run
    with the batch held.
    """
    own = clips_of(lab, lab.batch)
    known = {clip.hash for clip in own}
    seen = [clip for batch in seen_batches(lab) for clip in clips_of(lab, batch)]
    if not seen:
        raise SubjectError(
            "batches", "an iterator that ends at once", "the batches that training sees"
        )
    same = sum(clip.hash in known for clip in seen) / len(seen)
    share = sum(
        clip.hash not in known and any(is_variant(clip, original) for original in own)
        for clip in seen
    ) / len(seen)
    evidence = {
        "clips seen": len(seen),
        "identical to the batch's": same,
        "variants of the batch's": share,
    }
    experiment = "hashes of the clips of 12 batches against the batch's own"
    if share < VARIANT_SHARE or same + share < OWN_SHARE:
        return [
            Finding(
                "data.batch_varies",
                "excluded",
                f"{experiment}: " + ("it holds still" if same == 1.0 else "other clips, a corpus"),
                evidence,
                "batches",
            )
        ]
    endless = _endless(lab)
    varying = lab.course(Change("the batches as they come", batch_at=lambda number: next(endless)))
    held = lab.course()
    evidence |= {
        "TF L1 / best constant, as they come": varying.final,
        "the batch held fixed": held.final,
    }
    worse = varying.final > VARYING_HARM * held.final or (held.learnt and not varying.learnt)
    return [
        Finding(
            "data.batch_varies",
            "confirmed" if worse else "suspected",
            "training on the batches as they come against the batch held fixed, same seeds",
            evidence,
            "batches",
            min(1.0, max(0.0, 1 - held.final / max(varying.final, 1e-9))),
        )
    ]


def _endless(lab: Lab) -> Iterator[Batch]:
    while True:
        empty = True
        for batch in lab.subject.batches():
            empty = False
            yield private_copy(batch)
        if empty:
            return
