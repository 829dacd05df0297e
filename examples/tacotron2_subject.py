"""A model that is not ours behind a Subject: torchaudio's Tacotron 2, small, on the words
"he might" of the bundled voice.

tts-workbook diagnose examples/tacotron2_subject.py:subject
"""

import torch
from torch.nn import functional as F

from tts_workbook import Subject  # isort: skip  before torchaudio: it makes the import work
from torchaudio.models import Tacotron2

from tts_core.config import AudioConfig
from tts_core.speech.bundled import bundled_voice
from tts_core.speech.dataset import load_corpus

clip = load_corpus(bundled_voice(), AudioConfig(), only="0930").clips[0]
# (1, M, T): 0.65 s, the first 6 phonemes
mel = clip.mel[:56].T[None]
mel = (mel - mel.mean(2, keepdim=True)) / mel.std(2, keepdim=True)
batch = {"text": torch.from_numpy(clip.phoneme_ids[:6])[None], "mel": mel}


def run(model, batch):
    """Mel before and behind the post-net, (1, M, T) each, and the gate (1, T)."""
    n_phonemes, n_frames = (torch.tensor([batch[name].shape[-1]]) for name in ("text", "mel"))
    return model(batch["text"], n_phonemes, batch["mel"], n_frames)[:3]


def losses(model, batch):
    before, behind, gate = run(model, batch)
    stop = F.one_hot(torch.tensor([gate.shape[1] - 1]), gate.shape[1]).float()
    mel = F.l1_loss(before, batch["mel"]) + F.l1_loss(behind, batch["mel"])
    gate = F.binary_cross_entropy_with_logits(gate, stop)
    return {"mel": mel, "gate": gate, "total": mel + 0.1 * gate}


subject = Subject(
    build_model=lambda: Tacotron2(
        n_symbol=100,
        symbol_embedding_dim=64,
        encoder_embedding_dim=64,
        encoder_n_convolution=2,
        attention_rnn_dim=96,
        attention_hidden_dim=32,
        decoder_rnn_dim=128,
        prenet_dim=128,
        postnet_embedding_dim=64,
        postnet_n_convolution=2,
    ),
    batch=batch,
    losses=losses,
    make_optimizer=lambda model: torch.optim.Adam(model.parameters(), lr=1.6e-2),
    predict_mel=lambda model, batch: run(model, batch)[1].transpose(1, 2),
    # the post-net may look ahead, the decoder not
    predict_frames=lambda model, batch: run(model, batch)[0].transpose(1, 2),
    target_mel=lambda batch: (batch["mel"].transpose(1, 2), torch.tensor([batch["mel"].shape[2]])),
    # it drops units in eval mode, on purpose
    stochastic=("decoder.prenet",),
)
