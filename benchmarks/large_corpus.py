"""Is a corpus of 13,100 clips checked and iterated in bounded memory? Peak memory of each phase, at
a tenth of the clips and at all.

    python benchmarks/large_corpus.py [--clips 13100] [--folder DIR]

Makes that many tiny WAVs with TextGrids (about 0.4 s each, 250 MB in all; in a temporary folder
unless --folder says where they may stay), then runs each phase in a process of its own: the data
report, opening with a cold and with a warm feature cache, one epoch through the loader. Memory is
bounded if it grows by far less per clip than a clip's features take. Results:
`results/large_corpus.json`.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # a script has its own folder there, not the repository

from benchmarks.timing import provenance
from tests.tts_core.training.corpus.tiny_corpus import make_tiny_corpus
from tts_core.atomic_files import write_json
from tts_core.config import AudioConfig
from tts_core.training.corpus.feature_cache import FeatureCache
from tts_core.training.corpus.prepared_corpus import load_ahead, open_corpus
from tts_core.training.corpus.sampler import BatchPlan
from tts_workbook.corpus.data_report import check_corpus

RESULT = ROOT / "benchmarks" / "results" / "large_corpus.json"
PHASES = ("start", "check", "open, cold cache", "open, warm cache", "one epoch")
FRAME_BYTES = 80 * 4


def run_phase(job: tuple[str, Path]) -> dict[str, float]:
    """Peak memory (bytes), seconds, clips and frames of one phase on one corpus; `start` does
    nothing: what the imports take.
    """
    phase, root = job
    audio, cache = AudioConfig(), FeatureCache(root / "features")
    clips = frames = 0
    begin = time.perf_counter()
    if phase == "check":
        report = check_corpus(root, audio)
        clips, frames = len(report.rows), sum(row.frames for row in report.rows)
    elif phase != "start":
        corpus = open_corpus(root, audio, cache)
        items = corpus.train + corpus.held_out
        clips, frames = len(items), sum(item.n_frames for item in items)
        if phase == "one epoch":
            plan = BatchPlan([item.n_frames for item in corpus.train], batch_clips=32)
            batches = load_ahead(corpus, plan.parts(0, plan.steps_per_epoch), workers=0)
            clips = sum(len(batch.ids) for batch in batches)
    seconds = time.perf_counter() - begin
    unit = 1 if sys.platform == "darwin" else 1024
    return {
        "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit,
        "seconds": seconds,
        "clips": clips,
        "frames": frames,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clips", type=int, default=13_100)
    parser.add_argument(
        "--folder",
        type=Path,
        help="where the corpora are made and stay; default: a temporary folder",
    )
    parser.add_argument("--out", type=Path, default=RESULT)
    arguments = parser.parse_args()
    sizes = [max(50, arguments.clips // 10), arguments.clips]
    rows: dict[str, dict] = {}
    with (
        tempfile.TemporaryDirectory(prefix="tts-large-") as temporary,
        multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool,
    ):
        roots = [(arguments.folder or Path(temporary)) / f"clips_{size}" for size in sizes]
        for root, size in zip(roots, sizes, strict=True):
            # written last: a corpus without it is not whole
            if not (root / "metadata.csv").is_file():
                make_tiny_corpus(root, size)
        for phase in PHASES:
            small, large = (pool.apply(run_phase, ((phase, root),)) for root in roots)
            growth = (large["peak_bytes"] - small["peak_bytes"]) / (sizes[1] - sizes[0])
            features = large["frames"] * FRAME_BYTES / max(1, large["clips"])
            rows[phase] = {
                "small": small,
                "large": large,
                "growth_bytes_per_clip": growth,
                "feature_bytes_per_clip": features,
            }
            print(
                f"{phase:18} {sizes[0]:>6} clips {small['peak_bytes'] / 1e6:6.0f} MB  "
                f" {sizes[1]:>6} clips {large['peak_bytes'] / 1e6:6.0f} MB   {growth:8.0f} bytes"
                f" more per clip (its features: {features:.0f})   {large['seconds']:.1f} s",
                flush=True,
            )
    write_json(
        arguments.out,
        {
            "clips": sizes,
            "phases": rows,
            "provenance": provenance("large_corpus.py", clips=arguments.clips),
        },
    )


if __name__ == "__main__":
    main()
