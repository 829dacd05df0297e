"""The faults that keep a TTS model from learning: id, what it is, the experiment that decides, and
the way out.

Taxonomy after Humbatova et al. (ICSE 2020), the attention faults of arXiv 2508.04925, and
maintainers' threads.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Fault:
    """One row of the catalogue."""

    title: str
    experiment: str  # what decides
    fix: str
    defect: bool = True  # exposure drift is a property of training, not a mistake
    for_the_ear: bool = False
    remedy: bool = False
    explains: tuple[str, ...] = ()


CATALOGUE: dict[str, Fault] = {
    "data.text_audio_pairing": Fault(
        "text and audio belong to different clips",
        "predict frames of one clip from the text of others, against the same with texts re-paired"
        " at random",
        "check the join of transcripts and audio: ids, sorting, off-by-one rows",
    ),
    "data.token_collapse": Fault(
        "different symbols become the same token",
        "compare the ids that enter the embedding with the symbols as written",
        "extend the vocabulary or mend the cleaner; unknown symbols must raise",
    ),
    "data.mel_recipe": Fault(
        "the mel differs from what the vocoder inverts",
        "copy-synthesis of the target mel, as it is and with the scale converted",
        "use the vocoder's own mel recipe (magnitude or power, log base, floor, clip) for the"
        " targets",
        for_the_ear=True,
    ),
    "data.sample_rate": Fault(
        "features were made at another sample rate or hop",
        "duration and pitch of the copy-synthesis against the recording",
        "resample the audio to the recipe's rate before the features",
        for_the_ear=True,
    ),
    "data.unnormalised_target": Fault(
        "targets are far from zero mean and unit scale",
        "train the same model on standardised targets, same seeds",
        "standardise the targets per bin, with the statistics as buffers",
    ),
    "data.duration_sum": Fault(
        "durations do not add up to the frames",
        "sum the durations of every clip",
        "round cumulative times, not single durations; give the remainder to the last symbol",
    ),
    "data.duration_domain": Fault(
        "log durations are used as counts, or counts as log durations",
        "length of the expanded memory, and of full inference, against the frames",
        "convert once, at the length regulator: expm1 of log1p, rounded",
    ),
    "data.stale_features": Fault(
        "stored features are not what today's code computes",
        "compute the features of the audio again and compare",
        "key the feature cache on the recipe and the file, and rebuild it",
    ),
    "data.silence": Fault(
        "much of the clip is silence at its ends",
        "the same model and seeds without the silent ends",
        "trim silence at the ends before the features",
    ),
    "data.batch_varies": Fault(
        'the "single clip" is another one at every step',
        "hash the batches; train on one of them held fixed, same seeds",
        "switch random crops, augmentation and shuffling off for the overfit test",
    ),
    "model.memory_scale": Fault(
        "the encoder memory is far above unit scale, attention is saturated",
        "normalise the memory as the one factor, same seeds",
        "end the encoder with a LayerNorm",
    ),
    "model.no_causal_mask": Fault(
        "the decoder sees future frames",
        "change frames after t and watch the prediction of frame t",
        "give the decoder's self-attention a causal mask",
    ),
    "model.no_right_shift": Fault(
        "the decoder sees the frame that it predicts",
        "change frame t alone and watch its own prediction",
        "shift the decoder input right by one frame behind a go frame",
    ),
    "model.padding_mask": Fault(
        "a padding mask is missing or inverted",
        "append padding and watch the valid frames",
        "build masks from lengths, True where valid, and check the sign that each module wants",
    ),
    "model.text_ignored": Fault(
        "the text does not reach the prediction",
        "wrong text must change the prediction",
        "mend the path from memory to decoder (cross-attention, its mask and its gate)",
    ),
    "model.encoder_detached": Fault(
        "no gradient reaches the encoder",
        "gradient of the loss at the memory against the gradient in the encoder",
        "remove detach() or no_grad() between encoder and decoder",
    ),
    "model.positions": Fault(
        "positions are missing or drown what they are added to",
        "permute the memory; shrink the positions as the one factor, same seeds",
        "add positions at the scale of the embeddings",
    ),
    "model.dead_units": Fault(
        "units that are zero on every frame",
        "re-initialise the dead layer as the one factor, same seeds",
        "default initialisation, a smaller learning rate or a leaky activation",
    ),
    "model.dropout_always_on": Fault(
        "dropout is active in eval mode, or its p means keep",
        "two eval forwards of one batch; p = 0 as the one factor",
        "use nn.Dropout with p = share that is dropped, and eval() before predicting",
    ),
    "model.output_range": Fault(
        "the output cannot reach the range of the targets",
        "drive the last layer up and down and watch the prediction",
        "no tanh, sigmoid, ReLU or clamp after the mel projection",
    ),
    "model.norm_mode": Fault(
        "normalisation behaves differently in training and evaluation",
        "one batch with running and with batch statistics",
        "a momentum that keeps up, or LayerNorm; never train with frozen default statistics",
    ),
    "model.norm_runaway": Fault(
        "activations grow from layer to layer and through training",
        "normalise the growing branch, and warm up, each as the one factor",
        "normalise before each sub-layer (pre-norm) and warm the learning rate up",
    ),
    "model.bad_initialisation": Fault(
        "an initialisation that starves or saturates a branch",
        "the module's default initialisation as the one factor, same seeds",
        "leave PyTorch's default initialisation, or scale by the fan",
    ),
    "loss.padding_included": Fault(
        "the loss averages over padding too",
        "append padding and watch the loss",
        "mask by lengths and divide by the number of valid values",
    ),
    "loss.imbalance": Fault(
        "one term dominates the gradient of the others",
        "the term's weight set to 0 as the one factor, same seeds",
        "weigh the terms so that none has more than its share of the shared gradient",
    ),
    "loss.wrong_reduction": Fault(
        "the loss broadcasts or reduces over the wrong axis",
        "the loss of the target itself, and of its frames permuted",
        "compare tensors of equal shape elementwise, then average",
        explains=("loss.padding_included",),
    ),
    "loss.detached": Fault(
        "a term of the loss does not reach the weights",
        "gradient of each term",
        "keep the graph: no detach(), item() or argmax between weights and loss",
    ),
    "loss.logged_not_optimised": Fault(
        "the curve that is shown is not what is optimised",
        "recompute the term from the tensors; gradient of total against that of the term",
        "log the very tensor that backward() is called on",
    ),
    "optimizer.lr_too_small": Fault(
        "the learning rate is too small",
        "the learning rate raised as the one factor, same seeds",
        "raise the learning rate (a range test shows how far)",
        remedy=True,
    ),
    "optimizer.lr_too_large": Fault(
        "the learning rate is too large",
        "the learning rate lowered as the one factor, same seeds",
        "lower the learning rate or warm it up",
        remedy=True,
    ),
    "optimizer.weight_decay": Fault(
        "weight decay wins over the gradient",
        "decay 0 as the one factor, same seeds",
        "decay near 0.01, without biases and norms",
    ),
    "optimizer.clip_too_tight": Fault(
        "clipping makes the steps too small",
        "clipping off as the one factor, same seeds",
        "clip where only rare spikes are hit",
    ),
    "optimizer.missing_parameters": Fault(
        "parameters that the optimiser does not hold",
        "set of the model's parameters minus the optimiser's; no element moves",
        "register modules (nn.ModuleList) and build the optimiser from model.parameters()",
    ),
    "precision.low_precision_weights": Fault(
        "16-bit weights swallow the updates",
        "the fp32 twin at the same learning rate; share of elements that change",
        "keep weights in fp32 and use autocast",
    ),
    "precision.mask_overflow": Fault(
        "a mask value beyond the range of half precision",
        "the first module that is not finite; the fp32 twin",
        "mask with -inf or torch.finfo(dtype).min, never a literal like -1e9",
    ),
    "precision.scaler_skips": Fault(
        "the loss scaler skips every step",
        "count the steps that the optimiser really takes",
        "find what overflows (a mask value, a loss in half precision); start from a smaller scale",
    ),
    "precision.clip_before_unscale": Fault(
        "clipping sees scaled gradients",
        "gradient norm at the scaler's unscale, and update norm against loss scale",
        "call scaler.unscale_(optimizer) before clipping",
    ),
    "loop.no_zero_grad": Fault(
        "gradients pile up over the steps",
        "the same step from the same weights several times: the gradient grows",
        "optimizer.zero_grad(set_to_none=True) after every step",
    ),
    "loop.no_step": Fault(
        "the optimiser never steps",
        "hash of the parameters before and after",
        "call optimizer.step(), with gradients enabled",
    ),
    "loop.accumulation": Fault(
        "accumulated gradients differ from those of one big batch",
        "gradient at the optimiser against the gradient of the whole batch at once",
        "divide by the number of values of the whole step, not of the micro-batch",
    ),
    "loop.checkpointing": Fault(
        "gradient checkpointing kills or changes gradients",
        "gradient with and without checkpointing",
        "use_reentrant=False, and keep the random state",
    ),
    "loop.weights_not_loaded": Fault(
        "part of the checkpoint was not loaded",
        "compare the model's tensors with the checkpoint's",
        "load with strict=True and mend the names",
    ),
    "generation.exposure_gap": Fault(
        "errors grow while the model hears itself",
        "error against the number of self-fed frames",
        "noise or dropout on the history, scheduled sampling, or a coarser reduction factor",
        defect=False,
    ),
    "generation.layout": Fault(
        "generation feeds another history than training",
        "the generation code on the true history against the teacher-forced output",
        "build the history by one function in training and generation",
        for_the_ear=True,
    ),
    "generation.stopping": Fault(
        "the stop head never or always fires",
        "its probabilities at the last frame and before; length of full inference against the"
        " frames",
        "weigh the one positive frame, train longer, or bound the length by the durations",
        for_the_ear=True,
    ),
}
