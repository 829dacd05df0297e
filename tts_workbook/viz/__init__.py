"""Pictures and players: what a notebook or the report shows. It draws what it is handed and
measures nothing.

Names are loaded when first used, so that importing the package does not cost what matplotlib costs.
"""

import importlib

_HOME = {
    "mel_plots": ("plot_clip", "plot_mels", "plot_mel_snapshots"),
    "training_plots": ("plot_loss_curves", "plot_loss_over_constant", "plot_collapse"),
    "recorded_plots": ("plot_recorded_run",),
    "module_plots": ("plot_gradient_norms", "plot_update_ratios", "plot_module_scales"),
    "attention_plots": ("plot_alignment", "plot_attention_entropy"),
    "step_plots": ("plot_loss_shares", "plot_updates_without", "plot_precision", "plot_short_runs"),
    "memory_plots": ("plot_memory_scale",),
    "batch_plots": (
        "plot_duplication",
        "plot_gradient_noise",
        "plot_batch_curves",
        "plot_matched_outcomes",
    ),
    "corpus_plots": ("plot_corpus_training",),
    "comparison_plots": ("plot_baselines", "plot_tf_fr", "plot_text_use"),
    "intelligibility_plots": ("plot_intelligibility",),
    "interaction_plots": ("plot_interaction",),
    "self_feeding_plots": ("plot_self_feeding",),
    "sweep_plots": ("plot_sweep", "plot_sweep_curves", "plot_lr_range"),
    "ruling_plots": ("plot_effects", "plot_arm_curves", "plot_doses"),
    "stop_plots": ("plot_stop_head",),
    "diagnosis_plots": ("plot_courses",),
    "benchmark_plots": ("plot_confusion", "plot_root_cause", "plot_alarms"),
    "data_plots": (
        "plot_data_report",
        "plot_clip_lengths",
        "plot_levels",
        "plot_silence",
        "plot_noise",
        "plot_pace",
        "plot_transcript_match",
        "plot_phoneme_coverage",
        "plot_mel_range",
        "plot_clipped_mels",
        "plot_clip_baselines",
    ),
    "players": ("play", "play_row"),
    "picture": ("show",),
    "clip_cards": ("clip_card",),
    "widgets": ("scrub", "choose", "sweep_explorer"),
    "live": ("LiveCurves",),
}
__all__ = [name for names in _HOME.values() for name in names]


def __getattr__(name: str):
    for module, names in _HOME.items():
        if name in names:
            return getattr(importlib.import_module(f"tts_workbook.viz.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
