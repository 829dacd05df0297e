"""Trainings that are compared, and how a comparison becomes a ruling.

One training: clip_choice (which clips), preset_arm (a preset bound to clips), trial (frozen,
hashed), run_trial (trained and judged), trial_result, store; executors, dask_executor and threads
say where it runs.

Many trainings: sweep_grid and lr_range (notebook 05), batch_comparison (04), study_arms and studies
(the investigation, 06), study_records (what was recorded of them).

A ruling: statistics (tests and intervals), paired_effects (effects over pairs).
"""
