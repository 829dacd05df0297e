"""Runs the notebooks, and is what a notebook stands on while it runs.

in the kernel     notebook (`Notebook`: parameters, figures, audio, numbers, the verdict), verdicts
                  (what a verdict is), notebook_rules/ (what rules on the claims), study_rows,
                  recorded (results of earlier commands), display (pictures, progress)
parameters        parameters (the one schema), parameters_cell (a notebook's cell of them)
one run           run_notebooks, plan (order, upstream, keys), upstream (what is there already),
                  run_folder, record (run.json), data_hash, environment, console
one notebook      attempt, process (the runner's side), execute (a process of its own), context
                  (what the kernel is told), validate (is it to be believed?)
"""
