"""Trainings that are compared, and how a comparison becomes a ruling.

One training of a preset: clip_choice (which clips), preset_arm (a preset bound to clips), trial
(frozen, hashed), run_preset_trial (trained and judged). One of any Subject: subject_trial,
fresh_subject (its code, read anew), run_subject_trial. Both: run_trial, trial_result, provenance,
store; executors, dask_executor and threads say where it runs.

Many trainings: sweep_grid and lr_range (notebook 05), batch_comparison (04), study_arms, dose_study
and studies (the investigation, 06), study_records (what was recorded of them).

A ruling: statistics (tests and intervals), paired_effects (effects over pairs).
"""
