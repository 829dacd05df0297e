"""The ids of the same texts in training and on the paths of generation; and against the symbols.

Shapes: B clips, N text positions.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tts_workbook.measure.paths import (
    Alike,
    Path,
    PathErrors,
    TextIds,
    by_clip,
    compared_ids,
    entering,
    path_errors,
    paths_of,
    run_path,
    training_ids,
    training_rows_for,
    without_padding,
)
from tts_workbook.measure.text_tokens import ARRANGEMENTS, lined_up
from tts_workbook.subject.opened import OpenSubject
from tts_workbook.subject.subject import supplied

question = "Do training and generation map one text to the same ids?"

MOST_TRIES = 20_000  # steps of the search for symbols that were left out
MOST_READINGS = 200
N_CONTROLS = 10  # shuffles of the ids


@dataclass(frozen=True)
class PathIds:
    """The ids of one text embedding on one path, beside training's."""

    path: Path
    name: str  # of the embedding
    alike: Alike
    first: tuple[int, int, int, int] | None  # clip, position, id in training, id here
    lengths: tuple[int, int]  # ids of all clips: in training, and here
    errors: PathErrors | None  # None where the ids are the same, or were not matched


def path_ids(opened: OpenSubject, model: nn.Module) -> list[PathIds]:
    """Every text embedding on every path of generation that the subject supplies."""
    found = []
    training = training_ids(opened, model)
    for path in paths_of(opened):
        with entering(model, [ids.name for ids in training]) as entered:
            run_path(opened, model, path)
        for ids in training:
            calls = entered.get(ids.name)
            rows = None
            if calls is not None:
                matched = by_clip(calls, len(ids.rows), ids.turned)
                rows = None if matched is None else [tensors[0] for tensors in matched]
            found.append(_compared(opened, model, path, ids, rows))
    return found


def _compared(
    opened: OpenSubject,
    model: nn.Module,
    path: Path,
    training: TextIds,
    rows: Sequence[Tensor] | None,
) -> PathIds:
    if rows is not None:
        rows = [_text_of(row, own) for row, own in zip(rows, training.rows, strict=True)]
    alike = compared_ids(training, rows)
    if rows is None or alike in ("the same", "not matched"):
        return PathIds(path, training.name, alike, None, (0, 0), None)
    mine = [without_padding(row, training.padding) for row in training.rows]
    theirs = [without_padding(row, training.padding) for row in rows]
    exchange = None
    if [len(row) for row in mine] == [len(row) for row in theirs]:
        whole = torch.stack(training.rows, dim=1 if training.turned else 0)
        exchange = training_rows_for(training.rows, whole, training.padding)
    return PathIds(
        path=path,
        name=training.name,
        alike=alike,
        first=_first_difference(mine, theirs),
        lengths=(sum(map(len, mine)), sum(map(len, theirs))),
        errors=path_errors(opened, model, path, training.name, exchange),
    )


def _text_of(row: Tensor, own: Tensor) -> Tensor:
    """The text at the head of a row that goes on with something else: a row of training was cut
    there, and one of generation that begins with it is cut likewise.
    """
    if len(row) > len(own) and torch.equal(row[: len(own)], own.to(row)):
        return row[: len(own)]
    return row


def _first_difference(
    mine: Sequence[Sequence[int]], theirs: Sequence[Sequence[int]]
) -> tuple[int, int, int, int] | None:
    for clip, (a, b) in enumerate(zip(mine, theirs, strict=True)):
        for position in range(max(len(a), len(b))):
            one = a[position] if position < len(a) else -1
            other = b[position] if position < len(b) else -1
            if one != other:
                return clip, position, one, other
    return None


# --- symbols as written against the ids -----------------------------------------------------------


@dataclass(frozen=True)
class WrittenAndRead:
    """The symbols of the batch as written against the ids that training reads."""

    n_symbols: int  # as written, all clips
    n_ids: int
    lines_up: bool  # every symbol has its id
    # where kinds of symbols have no id and the others line up: the kinds without one, in each way
    # of reading it
    readings: tuple[tuple[str, ...], ...]
    by_chance: float  # share of shuffled ids that could be read so too

    @property
    def dropped(self) -> tuple[str, ...]:
        """Kinds without an id in every reading; those of the first one where there are none."""
        if not self.readings:
            return ()
        always = set(self.readings[0]).intersection(*self.readings)
        return tuple(sorted(always)) or self.readings[0]


def written_and_read(opened: OpenSubject) -> WrittenAndRead | None:
    """None where no text embedding is found. Raises SubjectError where the subject has no
    symbols.
    """
    symbols = supplied(opened.subject.symbols, "symbols")
    texts = [tuple(map(str, text)) for text in symbols(opened.batch)]
    known = training_ids(opened, opened.model)
    if not known:
        return None
    answers = [_against(texts, ids) for ids in known]
    # with several embeddings, the one that lines up is that of the symbols
    return min(answers, key=lambda answer: (not answer.lines_up, not answer.readings))


def _against(texts: Sequence[tuple[str, ...]], ids: TextIds) -> WrittenAndRead:
    n_symbols = sum(map(len, texts))
    n_ids = sum(len(without_padding(row, ids.padding)) for row in ids.rows)
    orders = _orders(texts, ids)
    if any(lined_up(torch.stack(rows), texts) is not None for rows in orders):
        return WrittenAndRead(n_symbols, n_ids, True, (), 0.0)
    for rows in orders:
        read = [without_padding(row, ids.padding) for row in rows]
        for start, step in ARRANGEMENTS:
            arranged = [row[start::step] for row in read]
            if sum(map(len, arranged)) >= n_symbols:
                continue
            readings = symbols_left_out(texts, arranged)
            if readings:
                chance = _by_chance(texts, arranged)
                return WrittenAndRead(n_symbols, n_ids, False, readings, chance)
    return WrittenAndRead(n_symbols, n_ids, False, (), 0.0)


def _orders(texts: Sequence[tuple[str, ...]], ids: TextIds) -> list[list[Tensor]]:
    """The rows of the ids in the order of the texts, as far as it can be guessed: as they are, and
    from the longest to the shortest, which packed recurrent layers ask for.
    """
    by_length = sorted(range(len(texts)), key=lambda index: -len(texts[index]))
    unsorted = [by_length.index(index) for index in range(len(texts))]
    return [list(ids.rows), [ids.rows[index] for index in unsorted]]


def _by_chance(texts: Sequence[Sequence[str]], rows: Sequence[Sequence[int]]) -> float:
    """Share of shuffles of all ids in which symbols could have been left out as well."""
    flat = [token for row in rows for token in row]
    stream = random.Random(0)
    n_read = 0
    for _ in range(N_CONTROLS):
        stream.shuffle(flat)
        rest = iter(flat)
        shuffled = [list(itertools.islice(rest, len(row))) for row in rows]
        n_read += bool(symbols_left_out(texts, shuffled, most=1))
    return n_read / N_CONTROLS


def symbols_left_out(
    texts: Sequence[Sequence[str]], rows: Sequence[Sequence[int]], most: int = MOST_READINGS
) -> tuple[tuple[str, ...], ...]:
    """The fewest kinds of symbols without which every text has one id for each symbol, and each
    kind its own: every such way of reading it among the first `most` that are found.
    """
    positions = [(clip, symbol) for clip, text in enumerate(texts) for symbol in text]
    last_of_clip = {}
    for index, (clip, _) in enumerate(positions):
        last_of_clip[clip] = index
    found: set[tuple[str, ...]] = set()
    # a state: place in `positions`, place in the clip's row, id of each kind (None: left out)
    states: list[tuple[int, int, Mapping[str, int | None]]] = [(0, 0, {})]
    for _ in range(MOST_TRIES):
        if not states or len(found) == most:
            break
        index, read, known = states.pop()
        if index == len(positions):
            found.add(tuple(sorted(symbol for symbol, token in known.items() if token is None)))
            continue
        clip, symbol = positions[index]
        row = rows[clip]
        for token in _options(symbol, known, row[read : read + 1]):
            here = read if token is None else read + 1
            at_end = index == last_of_clip[clip]
            # one id may follow a text: its end
            if at_end and not 0 <= len(row) - here <= 1:
                continue
            states.append((index + 1, 0 if at_end else here, {**known, symbol: token}))
    fewest = min(map(len, found), default=0)
    return tuple(sorted(reading for reading in found if reading and len(reading) == fewest))


def _options(
    symbol: str, known: Mapping[str, int | None], following: Sequence[int]
) -> list[int | None]:
    """What a symbol may have become before these ids: None where it may have been left out."""
    if symbol in known:
        token = known[symbol]
        return [token] if token is None or [*following] == [token] else []
    # the last is tried first
    return [None, *(token for token in following if token not in known.values())]
