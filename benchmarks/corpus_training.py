"""What a training on a corpus reached: errors and text use over its steps, and what a recogniser
understands of clips it never heard.

    python scripts/build_data_samples.py --all CORPUS
    python -m tts_core.training.train --data CORPUS --out runs/plain --steps 4000 ...       and as
    many others as are to be compared python benchmarks/corpus_training.py runs/plain runs/hidden
    [--note "beside other work"]

Each folder is a finished `--out`; its checkpoint is the best one by free-running error. Every
held-out clip is synthesised three times over: copy-synthesis of the recording (what no model can
beat), free-running over the true durations, and full inference from text alone. Results:
`results/corpus_training.json` and `.png`.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # a script has its own folder there, not the repository

from benchmarks.timing import provenance
from tts_core.atomic_files import read_json, write_bytes, write_json
from tts_core.errors import WorkbookError
from tts_core.metrics.free_running import measure_gap
from tts_core.metrics.full_inference import attempt_full_inference
from tts_core.model.tts import TTSModel
from tts_core.speech.dataset import load_corpus
from tts_core.training.checkpoint import load_model
from tts_core.training.corpus.continuation import BEST
from tts_core.training.corpus.feature_cache import FeatureCache
from tts_core.training.corpus.options import TrainConfig
from tts_core.training.corpus.prepared_corpus import TrainingCorpus, open_corpus
from tts_core.training.corpus.sampler import BatchPlan
from tts_core.training.corpus.validation import validate
from tts_workbook.corpus.espeak import ESPEAK
from tts_workbook.corpus.forced_alignment import POCKETSPHINX
from tts_workbook.measure.listening import Judge
from tts_workbook.viz.corpus_plots import plot_corpus_training

RESULT = ROOT / "benchmarks" / "results" / "corpus_training.json"
N_PHASES = 2  # of Griffin-Lim, for each word error rate
N_TRAINED = 16  # clips of the training part that are judged beside the held-out ones


def read_lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def _column(lines: list[dict], name: str) -> list:
    return [line[name] for line in lines]


def training_hours(train: TrainConfig, corpus: TrainingCorpus, log: list[dict]) -> float:
    """Hours of the steps themselves: the frames that the plan gave each line of the log, over the
    line's frames per second.
    """
    lengths = [item.n_frames for item in corpus.train]
    plan = BatchPlan(lengths, train.batch_clips, train.pool_batches, train.seed)
    seconds, begin = 0.0, 0
    for line in log:
        frames = 0
        for step in range(begin, line["step"]):
            frames += sum(lengths[index] for index in plan.clips_of(step))
        seconds += frames / line["frames_per_second"]
        begin = line["step"]
    return seconds / 3600


def understood(model: TTSModel, corpus: TrainingCorpus) -> dict[str, dict]:
    """Clip id -> word error rates, STOI and the error in length of every held-out clip."""
    ids = [item.entry.id for item in corpus.held_out]
    held_out = load_corpus(corpus.folder.root, corpus.audio, ids=ids, read=corpus.cache.read)
    clips = {clip.id: clip for clip in held_out.clips}
    found = {}
    for item in corpus.held_out:
        clip, batch = clips[item.entry.id], corpus.batch([item])
        judge = Judge(clip, corpus.audio)
        copy = judge(clip.mel, N_PHASES)
        free = judge(measure_gap(model, batch).fr_mel[0], N_PHASES)
        inferred, reason = attempt_full_inference(model, batch)
        row = {
            "text": clip.text,
            "words": len(clip.text.split()),
            "copy_wer": copy.wer(),
            "fr_wer": free.wer(),
            "fr_stoi": free.stoi,
            "copy_says": copy.says,
            "fr_says": free.says,
        }
        if inferred is None:
            row["no_inference"] = reason
        else:
            heard = judge(inferred.mel, N_PHASES)
            row |= {
                "inference_wer": heard.wer(),
                "inference_says": heard.says,
                "length_error_share": inferred.length_error_share,
                "stopped": inferred.stopped,
            }
        found[clip.id] = row
        print(
            f"  {clip.id}: {clip.text!r}; self-fed: {row['fr_says']!r}; from text alone:"
            f" {row.get('inference_says', reason)!r}",
            flush=True,
        )
    return found


def weighted(rows: dict[str, dict], name: str) -> float | None:
    """A word error rate over all clips: each counts by its words. None where no clip has one; a
    clip without speech counts 1.
    """
    words = sum(row["words"] for row in rows.values())
    if not words:
        return None
    wrong = sum(row["words"] * row.get(name, 1.0) for row in rows.values())
    return wrong / words


def judge_run(out: Path, cache: Path) -> dict:
    """The record of one finished training."""
    if not (out / BEST).is_file():
        raise WorkbookError(
            f"{out}: no {BEST}; give the --out of a training that has validated at least once"
        )
    started = read_json(out / "run.json")
    train, run = TrainConfig(**started["train"]), started["run"]
    loaded = load_model(out / BEST)
    corpus = open_corpus(
        run["data"],
        loaded.experiment.audio,
        FeatureCache(cache, POCKETSPHINX, ESPEAK),  # as the training had it
        held_out_clips=run["held_out_clips"],
    )
    if corpus.content_hash != loaded.notes["content_hash"]:
        raise WorkbookError(
            f"{out}: trained on other clips or features than {run['data']} holds now"
        )
    log, validations = read_lines(out / "train.jsonl"), read_lines(out / "validation.jsonl")
    validated = ("tf_l1", "fr_l1", "text_use", "fr_over_constant")
    rows = understood(loaded.model, corpus)
    best = loaded.notes["best"]["step"]
    held_out = next(line for line in validations if line["step"] == best)
    return {
        "train": started["train"],
        "threads": run["threads"],
        "versions": started["versions"],
        "clips": len(corpus.train),
        "held_out": len(corpus.held_out),
        "rejected": len(corpus.rejected),
        "minutes_of_speech": (
            sum(item.n_frames for item in corpus.train) * corpus.audio.hop_seconds / 60
        ),
        "parameters": sum(p.numel() for p in loaded.model.parameters()),
        "steps": log[-1]["step"],
        "epochs": log[-1]["epoch"],
        "hours": training_hours(train, corpus, log),
        "frames_per_second": statistics.median(line["frames_per_second"] for line in log),
        "curve": {
            "steps": _column(log, "step"),
            "mel_l1": _column(log, "mel_l1"),
        },
        "validation": {
            "steps": _column(validations, "step"),
            **{name: _column(validations, name) for name in validated},
        },
        "best_step": best,
        "at_best": held_out,
        "at_best_on_training_clips": (
            validate(loaded.model, corpus, corpus.train[:N_TRAINED], "cpu").to_dict()
        ),
        "word_error_rate": {
            name: weighted(rows, f"{name}_wer") for name in ("copy", "fr", "inference")
        },
        "stoi": statistics.median(row["fr_stoi"] for row in rows.values()),
        "clips_judged": rows,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "runs",
        nargs="+",
        type=Path,
        metavar="RUN",
        help="--out of a finished training; its name is the run's",
    )
    parser.add_argument(
        "--cache",
        type=Path,
        default=ROOT / "runs" / "features",
        help="feature cache of the trainings",
    )
    parser.add_argument("--note", default="", help="what else the machine did meanwhile")
    options = parser.parse_args()
    record = read_json(RESULT) if RESULT.exists() else {"runs": {}}
    for out in options.runs:
        print(out.name, flush=True)
        run = {
            **judge_run(out, options.cache),
            "note": options.note,
            "provenance": provenance(f"corpus_training.py runs/{out.name}"),
        }
        record["runs"][out.name] = run
        write_json(RESULT, record)  # after every run; one that is recorded already gives way
        print(
            f"{out.name}: step {run['best_step']} of {run['steps']} ({run['hours']:.1f} h),"
            f" held-out FR {run['at_best']['fr_over_constant']:.2f} of the best constant, text use"
            f" {run['at_best']['text_use']:.2f}, word error rates {run['word_error_rate']}",
            flush=True,
        )
    write_bytes(RESULT.with_suffix(".png"), plot_corpus_training(record["runs"]).png())


if __name__ == "__main__":
    main()
