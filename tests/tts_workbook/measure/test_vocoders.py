"""A tiny Vocos with random weights in a local folder: loaded by name, held to its recipe, in time
with our mels.
"""

import dataclasses

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import save_file

from tts_core.config import AudioConfig
from tts_core.errors import WorkbookError
from tts_workbook.measure.vocoders import load_vocoder, recipe_differences

AUDIO = AudioConfig(n_mels=8, n_fft=64, win_length=64, hop_length=16)


def make_folder(folder, padding="center", audio=AUDIO, **changes):
    """A Vocos folder with seeded random weights for the recipe `audio`; `changes` replace sections
    of its config.
    """
    heads, models = pytest.importorskip("vocos.heads"), pytest.importorskip("vocos.models")
    config = {
        "feature_extractor": {
            "class_path": "somewhere.OtherMels",
            "init_args": {"n_mels": audio.n_mels},
        },
        "audio": dataclasses.asdict(audio),
        "backbone": {
            "class_path": "vocos.models.VocosBackbone",
            "init_args": {
                "input_channels": audio.n_mels,
                "dim": 16,
                "intermediate_dim": 32,
                "num_layers": 1,
            },
        },
        "head": {
            "class_path": "vocos.heads.ISTFTHead",
            "init_args": {
                "dim": 16,
                "n_fft": audio.n_fft,
                "hop_length": audio.hop_length,
                "padding": padding,
            },
        },
    }
    torch.manual_seed(0)
    parts = {
        "backbone": models.VocosBackbone(**config["backbone"]["init_args"]),
        "head": heads.ISTFTHead(**config["head"]["init_args"]),
    }
    weights = {
        f"{part}.{key}": value.contiguous()
        for part, net in parts.items()
        for key, value in net.state_dict().items()
    }
    folder.mkdir(parents=True)
    save_file(
        weights | {"feature_extractor.mel_spec.window": torch.ones(3)}, folder / "model.safetensors"
    )
    config = {
        name: section for name, section in {**config, **changes}.items() if section is not None
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    return folder, parts


def test_it_says_what_vocos_says_and_takes_the_place_of_griffin_lim(tmp_path):
    folder, parts = make_folder(tmp_path / "vocoder")
    mel = torch.randn(40, 8, generator=torch.Generator().manual_seed(1)) - 4
    vocode = load_vocoder(folder)
    samples = vocode(mel, AUDIO)
    assert samples.shape == (39 * 16,) and samples.dtype == np.float32 and samples.std() > 0
    with torch.inference_mode():
        expected = parts["head"].eval()(parts["backbone"].eval()(mel.T[None]))[0]
    assert np.abs(samples - expected.numpy()[: 39 * 16]).max() < 1e-6
    assert np.array_equal(samples, vocode(mel, AUDIO, phase_seed=3))


def test_a_checkpoint_with_frames_half_a_hop_late_is_brought_back_in_time(tmp_path):
    centred, same = (
        load_vocoder(make_folder(tmp_path / padding, padding)[0]) for padding in ("center", "same")
    )
    mel = torch.randn(40, 8, generator=torch.Generator().manual_seed(1)) - 4
    a, b = centred(mel, AUDIO), same(mel, AUDIO)
    assert a.shape == b.shape
    inner = slice(64, -64)
    # the same frames and windows: only the edges differ
    assert np.corrcoef(a[inner], b[inner])[0, 1] > 0.95


def test_another_recipe_is_refused_by_what_differs(tmp_path):
    vocode = load_vocoder(make_folder(tmp_path / "vocoder")[0])
    with pytest.raises(
        WorkbookError,
        match=r"n_fft 64 but 1024 here, .*hop_length 16 but 256 here, n_mels 8 but 80",
    ):
        vocode(torch.zeros(40, 80), AudioConfig())
    with pytest.raises(WorkbookError, match="another mel recipe: n_fft 64 but 1024 here"):
        load_vocoder(tmp_path / "vocoder", AudioConfig())
    with pytest.raises(WorkbookError, match="3 non-finite"):
        vocode(torch.full((3, 1), torch.nan), AUDIO)
    assert recipe_differences(AUDIO, dataclasses.replace(AUDIO, log_floor=1e-7)) == ""


def test_vocos_own_features_state_the_recipe(tmp_path):
    own = {
        "class_path": "vocos.feature_extractors.MelSpectrogramFeatures",
        "init_args": {"sample_rate": 22_050, "n_fft": 64, "hop_length": 16, "n_mels": 8},
    }
    folder, _ = make_folder(tmp_path / "vocoder", feature_extractor=own)
    assert load_vocoder(folder).audio == AUDIO  # the audio block wins
    found = load_vocoder(rewrite(folder, audio=None)).audio
    assert (found.mel_scale, found.mel_norm, found.f_max) == ("htk", "none", 11_025)
    assert (found.power, found.log_floor) == (1.0, 1e-7)


def rewrite(folder, **changes):
    config = yaml.safe_load((folder / "config.yaml").read_text()) | changes
    kept = {name: section for name, section in config.items() if section is not None}
    (folder / "config.yaml").write_text(yaml.safe_dump(kept))
    return folder


def test_what_is_wrong_with_a_folder_is_said(tmp_path):
    with pytest.raises(WorkbookError, match="no such file; a vocoder is a local folder"):
        load_vocoder(tmp_path)
    folder, _ = make_folder(tmp_path / "vocoder")
    good = yaml.safe_load((folder / "config.yaml").read_text())
    for changes, message in (
        ({"head": None}, "no section 'head'"),
        ({"audio": None}, "OtherMels, whose recipe nothing states"),
        ({"audio": {"n_melz": 8}}, "unknown key n_melz"),
        ({"audio": 5}, "must be a mapping"),
        (
            {"backbone": {"class_path": "os.system", "init_args": {}}},
            "backbone 'os.system', but it must be one of",
        ),
        (
            {"head": {"class_path": "vocos.heads.ISTFTHead", "init_args": {"dims": 16}}},
            "head cannot be built",
        ),
        (
            {
                "backbone": {
                    **good["backbone"],
                    "init_args": {**good["backbone"]["init_args"], "dim": 8},
                }
            },
            "weights do not fit",
        ),
    ):
        rewrite(folder, **changes)
        with pytest.raises(WorkbookError, match=message):
            load_vocoder(folder)
        (folder / "config.yaml").write_text(yaml.safe_dump(good))
    (folder / "config.yaml").write_text("a: [")
    with pytest.raises(WorkbookError, match="not YAML"):
        load_vocoder(folder)


def test_pickled_weights_are_refused_with_the_way_out(tmp_path):
    folder, _ = make_folder(tmp_path / "vocoder")
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(
        WorkbookError,
        match=r"pytorch_model\.bin can run code when loaded and is not read: convert it",
    ):
        load_vocoder(folder)
    (folder / "model.safetensors").write_bytes(b"half")
    with pytest.raises(WorkbookError, match="not a whole safetensors file"):
        load_vocoder(folder)
