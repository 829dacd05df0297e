"""What is measured, by question. A file is one measurement; its `question` says what it answers.

does the data allow it          feature_difference, mel_recipes, copy_synthesis, silent_ends,
                                text_fit, text_tokens, log_durations, duration_layout, seen_clips,
                                batch_fields, non_finite
where are the model's parts     anatomy, module_groups, initial_weights, expanded_memory
does one step work              observed_steps, module_audit, term_gradients, gradient_spread,
                                step_parity, optimizer_parity, updates_without, prediction
is the same batch the same      equivalence, duplication, padding
does text reach the mel         activations, memory_response, mel_path, scale_pairs
did it learn                    headline, trajectory, alignment_record, self_feeding, stop_head,
                                stop_pattern, duration_head
does generation match           history_parity, interaction, paths, text_paths,
                                condition_paths, own_history
can it be understood            intelligibility, listening, time_warping, vocoders

supply.py says what a subject has to give for a measurement.
"""
