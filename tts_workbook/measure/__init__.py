"""What is measured, by question; a file is one measurement and what it means.

does the data allow it      data_report, baselines
does one step work          gradients, loss_shares, step_parity, optimizer_parity, duplication
does text reach the mel     activations, memory_scale, mel_path, scale_pairs, text_use
did it learn                trajectory, alignment_record, free_running, self_feeding, stop_head,
full_inference does generation match       parity, interaction, alignment_error can it be understood
intelligibility, listening, mel_recipes, time_warping, vocoders
"""
