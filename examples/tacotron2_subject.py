"""A model that is not ours behind a Subject: torchaudio's Tacotron 2, small, on one clip of the bundled voice.

    tts-workbook diagnose examples/tacotron2_subject.py:subject
"""

import torch
from torch.nn import functional as F
from tts_core.diagnosis import Subject       # first: it makes `import torchaudio` work beside any torch
from torchaudio.models import Tacotron2

from tts_core.config import AudioConfig
from tts_core.speech.bundled import bundled_voice
from tts_core.speech.dataset import load_corpus

clip = load_corpus(bundled_voice(), AudioConfig(), only="0930").clips[0]
mel = ((clip.mel - clip.mel.mean(0)) / clip.mel.std(0)).T[None, :, :100]           # (1, M, T), standardised
batch = {"text": torch.from_numpy(clip.phoneme_ids)[None], "mel": mel}


def run(model, batch):
    """Mel before and behind the post-net, (1, M, T) each, and the gate (1, T)."""
    lengths = torch.tensor([batch["text"].shape[1]]), torch.tensor([batch["mel"].shape[2]])
    before, behind, gate, _ = model(batch["text"], lengths[0], batch["mel"], lengths[1])
    return before, behind, gate


def losses(model, batch):
    before, behind, gate = run(model, batch)
    stop = F.one_hot(torch.tensor([gate.shape[1] - 1]), gate.shape[1]).float()
    terms = {"mel": F.l1_loss(before, batch["mel"]) + F.l1_loss(behind, batch["mel"]),
             "gate": F.binary_cross_entropy_with_logits(gate, stop)}
    return {**terms, "total": terms["mel"] + 0.1 * terms["gate"]}


subject = Subject(
    build_model=lambda: Tacotron2(n_symbol=100, symbol_embedding_dim=64, encoder_embedding_dim=64, attention_rnn_dim=96,
                                  attention_hidden_dim=32, decoder_rnn_dim=128, prenet_dim=96, postnet_embedding_dim=64),
    batch=batch, losses=losses, make_optimizer=lambda model: torch.optim.Adam(model.parameters(), lr=3e-3),
    predict_mel=lambda model, batch: run(model, batch)[1].transpose(1, 2),
    predict_frames=lambda model, batch: run(model, batch)[0].transpose(1, 2),      # the post-net may look ahead, the decoder not
    target_mel=lambda batch: (batch["mel"].transpose(1, 2), torch.tensor([batch["mel"].shape[2]])),
    stochastic=("decoder.prenet",))                                                # it drops units in eval mode, on purpose
