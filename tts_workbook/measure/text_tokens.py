"""The ids that stand for symbols, where the text enters the model.

Shapes: B clips, N text positions; N' positions of the tensor that holds their ids.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from tts_workbook.measure.seen_clips import seen_batches
from tts_workbook.subject.isolation import tensors_in
from tts_workbook.subject.module_calls import text_embeddings
from tts_workbook.subject.opened import OpenSubject
from tts_workbook.subject.subject import Batch, supplied

question = "Which ids stand for which symbols?"

# (first id, step) of the symbols' ids: as they are, behind a start token, with blanks in between
ARRANGEMENTS = ((0, 1), (1, 1), (1, 2), (0, 2))

Token = tuple[int, ...]  # the ids of one symbol in each place where text enters


@dataclass(frozen=True)
class SymbolTokens:
    """How often each symbol became which token."""

    where: str  # the text embeddings, or "batch"; empty where no ids line up with the symbols
    counts: dict[str, dict[Token, int]]  # symbol -> token -> positions


def symbol_tokens(opened: OpenSubject) -> SymbolTokens:
    """Of the batch and of what training sees: symbols as written against the ids that enter the
    text embeddings (else, that the batch holds). Raises SubjectError where there are no symbols.
    """
    symbols = supplied(opened.subject.symbols, "symbols")
    counts: dict[str, dict[Token, int]] = {}
    wheres = []
    for batch in (opened.batch, *seen_batches(opened)):
        texts = symbols(batch)
        where, rows = _token_rows(opened, batch, texts)
        wheres.append(where)
        # no rows where nothing lines up
        for text, row in zip(texts, rows, strict=False):
            for symbol, token in zip(text, row, strict=True):
                own = counts.setdefault(str(symbol), {})
                own[token] = own.get(token, 0) + 1
    return SymbolTokens(wheres[0], counts)


def _token_rows(
    opened: OpenSubject, batch: Batch, texts: Sequence[Sequence[str]]
) -> tuple[str, list[list[Token]]]:
    """Where the ids were found, and per clip one tuple of ids for each symbol."""
    calls = opened.calls(opened.model, batch)
    names = text_embeddings(opened.model, calls)
    where = ", ".join(names)
    entered = [call.inputs[0] for call in calls if call.name in names and call.inputs]
    found = _all_lined_up(entered, texts)
    if not found:
        where = "batch"
        found = _ids_of_batch(opened, batch, texts)
    if not found:
        return "", []
    return where, [_tokens_of_clip(parts) for parts in zip(*found, strict=True)]


def _tokens_of_clip(parts: Sequence[list[int]]) -> list[Token]:
    """The ids of one clip in each place where they were found, put together by symbol."""
    return list(zip(*parts, strict=True))


def _all_lined_up(
    tensors: Sequence[Tensor], texts: Sequence[Sequence[str]]
) -> list[list[list[int]]]:
    rows = [lined_up(ids, texts) for ids in tensors]
    return [row for row in rows if row is not None]


def _ids_of_batch(
    opened: OpenSubject, batch: Batch, texts: Sequence[Sequence[str]]
) -> list[list[list[int]]]:
    """Whole numbers of the batch that line up with the symbols, the durations left out."""
    durations: Any = opened.subject.durations(batch) if opened.subject.durations else []
    whole = [
        tensor
        for tensor in tensors_in(batch)
        if not tensor.is_floating_point() and tensor.dtype != torch.bool
    ]
    found = _all_lined_up(whole, texts)
    return [rows for rows in found if not _are_durations(rows, durations)]


def _are_durations(rows: list[list[int]], durations: Sequence[Any]) -> bool:
    """Whether whole numbers are the durations."""
    if len(rows) != len(durations):
        return False
    pairs = zip(rows, durations, strict=True)
    return all(row == [int(count) for count in counts][: len(row)] for row, counts in pairs)


def lined_up(ids: Tensor, texts: Sequence[Sequence[str]]) -> list[list[int]] | None:
    """Ids (B, N') of the symbols alone, in the first arrangement in which every symbol has one id:
    as they are, behind a start token, or with blanks in between. None where there is none.
    """
    if ids.ndim != 2 or ids.is_floating_point():
        return None
    for turned in (ids, ids.T):
        if len(turned) != len(texts):
            continue
        for start, step in ARRANGEMENTS:
            rows = [
                row[start::step][: len(text)].tolist()
                for row, text in zip(turned, texts, strict=True)
            ]
            if _one_id_each(rows, texts):
                return rows
    return None


def _one_id_each(rows: list[list[int]], texts: Sequence[Sequence[str]]) -> bool:
    """Whether every symbol has an id, and each the same one everywhere."""
    ids: dict[str, int] = {}
    for text, row in zip(texts, rows, strict=True):
        if len(row) != len(text):
            return False
        for symbol, number in zip(text, row, strict=True):
            if ids.setdefault(symbol, number) != number:
                return False
    return True
