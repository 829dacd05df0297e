"""Rebuild data_samples/ from the Debian packages that the speech comes from, or all English
prompts into a folder.

    python scripts/build_data_samples.py              apt-get download, then write data_samples/
    python scripts/build_data_samples.py --debs DIR   use packages that are already there
    python scripts/build_data_samples.py --all DIR    every usable English prompt into DIR (more
                                                      than 500, 17 minutes of speech)

Three voices: librivox (5 read sentences), allison (64 telephone prompts, 32 to train on and 32 held
out), russian (12 prompts without alignments). The prompts are G.722 and need ffmpeg to decode. Same
packages, same bytes out.
"""

from __future__ import annotations

import argparse
import difflib
import gzip
import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from tts_core.errors import WorkbookError
from tts_core.speech.alignment import read_textgrid
from tts_core.speech.audio import load_wav, wav_info
from tts_workbook.corpus.data_report import recogniser_word_error_rate
from tts_workbook.corpus.forced_alignment import align_folder
from tts_workbook.corpus.recogniser import RATE

ROOT = Path(__file__).resolve().parents[1]
LIBRIVOX = "pocketsphinx-testdata"
# language -> folder of the recordings
PROMPTS = {"en": "en_US_f_Allison", "ru": "ru_RU_f_IvrvoiceRU"}
PACKAGES = (
    LIBRIVOX,
    *(f"asterisk-core-sounds-{language}{codec}" for language in PROMPTS for codec in ("", "-g722")),
)
SECONDS = (1.0, 6.0)  # of a bundled prompt
N_TRAIN = N_HELD_OUT = 32
N_RUSSIAN = 12
MAX_WORD_ERROR_RATE = 1 / 3  # of the recogniser: the recording says the text
MEDIAN_PHONE = (0.04, 0.16)  # s, of a plausible alignment
MAX_PHONE = 0.45  # s
DIGITS = dict(
    zip(
        "0123456789",
        ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"],
        strict=True,
    )
)
# in texts that describe a tone, or that one can read in several ways
NOT_SPOKEN = r"[\[\]()<>@=/|#*]|\d\d"
MAX_SIMILARITY = 0.6  # of the words of two bundled texts (difflib ratio)
# what the prompts of --all say and the built-in dictionary lacks; goes into the corpus as
# dictionary.txt
PRONUNCIATIONS = """\
backtick  B AE K T IH K
caret  K EH R AH T
digium  D IH JH IY AH M
forevermore  F ER EH V ER M AO R
lowercase  L OW ER K EY S
pbx  P IY B IY EH K S
prepend  P R IY P EH N D
rerecord  R IY R IH K AO R D
semicolon  S EH M IY K OW L AH N
touchtone  T AH CH T OW N
undelete  AH N D IH L IY T
undeleted  AH N D IH L IY T IH D
unmute  AH N M Y UW T
unmuted  AH N M Y UW T IH D
uppercase  AH P ER K EY S
xray  EH K S R EY
"""


@dataclass(frozen=True)
class Prompt:
    """One recorded sentence."""

    id: str
    text: str  # as published
    spoken: str  # numbers written out
    wav: Path  # 16 kHz, 16 bit
    units: Counter = field(default_factory=Counter)  # phonemes (English) or letters (Russian)

    @property
    def seconds(self) -> float:
        return wav_info(self.wav).seconds


# --- packages -------------------------------------------------------------------------------------


def run(*command: str | Path, cwd: Path | None = None) -> str:
    done = subprocess.run(
        [str(part) for part in command], cwd=cwd, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise WorkbookError(f"`{' '.join(map(str, command))}` failed: {done.stderr.strip()}")
    return done.stdout


def require(program: str, remedy: str) -> None:
    if shutil.which(program) is None:
        raise WorkbookError(f"this script needs `{program}`, which is not installed: {remedy}")


def unpack(debs: Path | None, work: Path) -> dict[str, tuple[Path, str]]:
    """Package -> (unpacked tree, version). Downloads with apt-get unless `debs` holds the
    packages.
    """
    require(
        "ffmpeg",
        "it decodes the G.722 prompts: `apt-get install ffmpeg` or `conda install -c conda-forge"
        " ffmpeg`",
    )
    require(
        "dpkg-deb",
        "it unpacks the packages; it comes with Debian and Ubuntu, elsewhere use a container of"
        " them",
    )
    if debs is None:
        require(
            "apt-get",
            "run this on Debian or Ubuntu, or give --debs DIR with the packages "
            + ", ".join(PACKAGES),
        )
        debs = work / "debs"
        debs.mkdir()
        run("apt-get", "download", *PACKAGES, cwd=debs)
    unpacked = {}
    for package in PACKAGES:
        found = sorted(debs.glob(f"{package}_*.deb"))
        if not found:
            raise WorkbookError(f"{debs}: no {package}_*.deb; `apt-get download {package}` gets it")
        run("dpkg-deb", "-x", found[-1], work / package)
        unpacked[package] = work / package, run("dpkg-deb", "-f", found[-1], "Version").strip()
    return unpacked


def licence(unpacked: dict[str, tuple[Path, str]], package: str, heading: str) -> str:
    text = (unpacked[package][0] / "usr/share/doc" / package / "copyright").read_text("utf-8")
    return f"{heading}\n\nThe copyright file of the Debian package {package}, in full:\n\n{text}"


def decode_prompts(
    unpacked: dict[str, tuple[Path, str]], language: str, work: Path
) -> list[Prompt]:
    """Every recorded prompt whose published text is nothing but words, decoded to 16 kHz wav under
    `work`.
    """
    package = f"asterisk-core-sounds-{language}"
    sounds = unpacked[f"{package}-g722"][0] / "usr/share/asterisk/sounds" / PROMPTS[language]
    listing = unpacked[package][0] / "usr/share/doc" / package / f"core-sounds-{language}.txt.gz"
    foreign = r"$^" if language == "en" else r"[0-9A-Za-z]"
    (work / language).mkdir()
    prompts = []
    for line in gzip.decompress(listing.read_bytes()).decode("utf-8").splitlines():
        name, _, text = line.partition(":")
        source, text = sounds / f"{name}.g722", " ".join(text.split())
        unreadable = re.search(NOT_SPOKEN, text) or re.search(foreign, text)
        if line.startswith(";") or not source.is_file() or unreadable:
            continue
        wav = work / language / f"{name.replace('/', '-')}.wav"
        decode_g722(source, wav)
        try:
            wav_info(wav)
        except WorkbookError as error:
            print(f"  left out: {error}")
        else:
            prompts.append(Prompt(wav.stem, text, spoken_text(text), wav))
    return prompts


def decode_g722(source: Path, wav: Path) -> None:
    """G.722 to a 16-bit wav at the recogniser's rate, without ffmpeg's marks in it."""
    encode = f"-c:a pcm_s16le -ar {RATE} -fflags +bitexact -flags:a +bitexact -map_metadata -1"
    run("ffmpeg", "-v", "error", "-f", "g722", "-i", source, *encode.split(), wav)


def spoken_text(text: str) -> str:
    """The text with its digits as words, and no space before a mark."""
    in_words = re.sub(r"\d", lambda digit: f" {DIGITS[digit[0]]} ", text)
    return re.sub(r"\s+([.,;:!?])", r"\1", " ".join(in_words.split()))


# --- choice ---------------------------------------------------------------------------------------


def usable_english(unpacked: dict[str, tuple[Path, str]], work: Path) -> list[Prompt]:
    """The English prompts that `align_folder` can align, with their phonemes. Prints why others are
    left out.
    """
    prompts = sorted(decode_prompts(unpacked, "en", work), key=lambda prompt: prompt.id)
    write_voice(work / "all", prompts, {"dictionary.txt": PRONUNCIATIONS})
    usable = []
    for prompt, result in zip(prompts, align_folder(work / "all"), strict=True):
        if result.status == "failed":
            print(f"  left out: {prompt.id}: {result.reason.partition(': add')[0]}")
            continue
        labels = [phone.label for phone in read_textgrid(result.path).phones]
        usable.append(replace(prompt, units=Counter(label for label in labels if label)))
    return usable


def fit_to_bundle(prompt: Prompt, textgrid: Path) -> bool:
    """1 to 6 s long, aligned plausibly, and understood by the recogniser."""
    seconds = [phone.end - phone.start for phone in read_textgrid(textgrid).phones if phone.label]
    if not SECONDS[0] <= prompt.seconds <= SECONDS[1] or max(seconds) > MAX_PHONE:
        return False
    if not MEDIAN_PHONE[0] <= np.median(seconds) <= MEDIAN_PHONE[1]:
        return False
    wrong = recogniser_word_error_rate(prompt.spoken, load_wav(prompt.wav, RATE), RATE)
    return wrong <= MAX_WORD_ERROR_RATE


def similarity(first: tuple[str, ...], second: tuple[str, ...]) -> float:
    return difflib.SequenceMatcher(None, first, second, autojunk=False).ratio()


def choose_balanced(prompts: list[Prompt], sizes: list[int]) -> list[list[Prompt]]:
    """Disjoint sets of the given sizes, chosen greedily in turns; no two texts are alike.

    Each turn takes the prompt that adds most to its set's sum of log(1 + count) over phonemes, per
    square root of a second: a rare phoneme is worth most, so the choice covers the phonemes first
    and then balances them.
    """
    sets: list[list[Prompt]] = [[] for _ in sizes]
    counts: list[Counter] = [Counter() for _ in sizes]
    left = {tuple(re.findall(r"[\w']+", prompt.spoken.casefold())): prompt for prompt in prompts}

    def gain(prompt: Prompt, have: Counter) -> float:
        added = sum(
            np.log1p(have[unit] + n) - np.log1p(have[unit]) for unit, n in prompt.units.items()
        )
        return added / np.sqrt(prompt.seconds)

    while any(len(chosen) < size for chosen, size in zip(sets, sizes, strict=True)):
        for chosen, have, size in zip(sets, counts, sizes, strict=True):
            if len(chosen) == size:
                continue
            if not left:
                raise WorkbookError(
                    f"only {sum(map(len, sets))} prompts are fit and different; loosen limits"
                )
            gains = {text: gain(prompt, have) for text, prompt in left.items()}
            best = max(left, key=lambda text: (gains[text], text))
            have.update(left[best].units)
            chosen.append(left[best])
            left = {
                text: prompt
                for text, prompt in left.items()
                if similarity(best, text) <= MAX_SIMILARITY
            }
    return sets


# --- voices ---------------------------------------------------------------------------------------


def write_voice(root: Path, prompts: list[Prompt], texts: dict[str, str]) -> None:
    """Replace the folder `root` by metadata.csv, wavs/ and the small text files `texts`."""
    shutil.rmtree(root, ignore_errors=True)
    (root / "wavs").mkdir(parents=True)
    prompts = sorted(prompts, key=lambda prompt: prompt.id)
    for prompt in prompts:
        shutil.copyfile(prompt.wav, root / "wavs" / f"{prompt.id}.wav")
    rows = "".join(f"{prompt.id}|{prompt.text}|{prompt.spoken}\n" for prompt in prompts)
    for name, text in {"metadata.csv": rows, **texts}.items():
        (root / name).write_text(text.rstrip() + "\n", encoding="utf-8", newline="\n")


def id_list(prompts: list[Prompt]) -> str:
    return "\n".join(sorted(prompt.id for prompt in prompts))


def english_texts(unpacked: dict[str, tuple[Path, str]]) -> dict[str, str]:
    package = "asterisk-core-sounds-en-g722"
    _, version = unpacked[package]
    return {
        "language.txt": "en",
        "LICENSE": licence(
            unpacked,
            package,
            "Recordings: Allison Smith (http://www.theivrvoice.com), with financial "
            "contributions by Digium, Inc.\nLicence: Creative Commons Attribution-ShareAlike 3.0 "
            "(CC-BY-SA-3.0).\nChanged: decoded, numbers in the texts written out, phone alignments "
            "added, under the same licence.",
        ),
        "SOURCE": (
            f"Debian packages {package} and asterisk-core-sounds-en, version {version}\n"
            "(http://downloads.asterisk.org/pub/telephony/asterisk/).\nG.722"
            " decoded with ffmpeg to 16 kHz, 16-bit PCM; texts from core-sounds-en.txt.gz, digits"
            " written\nout as words in the third column; slashes in names became hyphens;"
            " alignments/ by\n`tts-workbook align` (pocketsphinx). Made by"
            " scripts/build_data_samples.py."
        ),
    }


def build_librivox(unpacked: dict[str, tuple[Path, str]], root: Path) -> None:
    tree, version = unpacked[LIBRIVOX]
    source = tree / "usr/share/pocketsphinx/test/data/librivox"
    rows = re.findall(r"<s> (.*) </s> \((.*)\)", (source / "transcription").read_text("utf-8"))
    prompts = [Prompt(name, text, text, source / f"{name}.wav") for text, name in rows]
    write_voice(
        root,
        prompts,
        {
            "language.txt": "en",
            "default_clip.txt": next(prompt.id for prompt in prompts if prompt.id.endswith("0930")),
            "LICENSE": licence(
                unpacked,
                LIBRIVOX,
                "Recordings: Sense and Sensibility by Jane Austen, chapter 1, read for LibriVox"
                " (https://librivox.org);\nLibriVox recordings are in the public domain. The"
                " selection, the cut and the transcripts are part of pocketsphinx.",
            ),
            "SOURCE": (
                f"Debian package {LIBRIVOX}, version"
                f" {version}:\nusr/share/pocketsphinx/test/data/librivox/*.wav as they are (16 kHz,"
                " 16-bit PCM), texts from `transcription`\nwithout the sentence marks; alignments/"
                " by `tts-workbook align` (pocketsphinx).\nMade by scripts/build_data_samples.py."
            ),
        },
    )
    align_folder(root)


def build_allison(unpacked: dict[str, tuple[Path, str]], root: Path, work: Path) -> None:
    usable, textgrids = usable_english(unpacked, work), work / "all" / "alignments"
    fit = [
        prompt for prompt in usable if fit_to_bundle(prompt, textgrids / f"{prompt.id}.TextGrid")
    ]
    train, held_out = choose_balanced(fit, [N_TRAIN, N_HELD_OUT])
    lists = {"train.txt": id_list(train), "held_out.txt": id_list(held_out)}
    write_voice(root, train + held_out, {**english_texts(unpacked), **lists})
    align_folder(root)


def build_russian(unpacked: dict[str, tuple[Path, str]], root: Path, work: Path) -> None:
    package = "asterisk-core-sounds-ru-g722"
    _, version = unpacked[package]
    prompts = [
        replace(prompt, units=Counter(filter(str.isalpha, prompt.spoken.casefold())))
        for prompt in decode_prompts(unpacked, "ru", work)
        if SECONDS[0] <= prompt.seconds <= SECONDS[1]
    ]
    [chosen] = choose_balanced(prompts, [N_RUSSIAN])
    write_voice(
        root,
        chosen,
        {
            "language.txt": "ru",
            "LICENSE": licence(
                unpacked,
                package,
                "Recordings: provided by Maxim Topal (http://www.ivrvoice.ru).\nLicence: Creative"
                " Commons Attribution 3.0 (CC-BY-3.0).\nChanged: decoded from G.722.",
            ),
            "SOURCE": (
                f"Debian packages {package} and asterisk-core-sounds-ru, version {version}\n"
                "(http://downloads.asterisk.org/pub/telephony/asterisk/).\nG.722"
                " decoded with ffmpeg to 16 kHz, 16-bit PCM; texts from core-sounds-ru.txt.gz."
                " There are no\nalignments on purpose: this voice shows the uniform-duration"
                " warning.\nMade by scripts/build_data_samples.py."
            ),
        },
    )


def report(root: Path) -> None:
    wavs = sorted((root / "wavs").iterdir())
    size = sum(path.stat().st_size for path in root.rglob("*") if path.is_file())
    print(
        f"{root}: {len(wavs)} clips, {sum(wav_info(wav).seconds for wav in wavs):.1f} s,"
        f" {size / 1e6:.2f} MB"
    )


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--debs",
        type=Path,
        metavar="DIR",
        help="folder with the packages; default: apt-get download",
    )
    parser.add_argument(
        "--all",
        type=Path,
        metavar="DIR",
        help="write all usable English prompts into this new folder",
    )
    parser.add_argument(
        "--out",
        type=Path,
        metavar="DIR",
        default=ROOT / "data_samples",
        help="default: data_samples/",
    )
    options = parser.parse_args()
    try:
        with tempfile.TemporaryDirectory() as folder:
            work = Path(folder)
            if options.all and options.all.exists():
                raise WorkbookError(f"{options.all} exists; --all wants a new folder")
            unpacked = unpack(options.debs, work)
            if options.all:
                texts = {**english_texts(unpacked), "dictionary.txt": PRONUNCIATIONS}
                write_voice(options.all, usable_english(unpacked, work), texts)
                align_folder(options.all)
                report(options.all)
                return 0
            build_librivox(unpacked, options.out / "librivox")
            build_allison(unpacked, options.out / "allison", work)
            build_russian(unpacked, options.out / "russian", work)
            for voice in ("librivox", "allison", "russian"):
                report(options.out / voice)
            return 0
    except WorkbookError as error:
        print(f"build_data_samples: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
