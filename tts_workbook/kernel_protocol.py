"""What the runner and the kernel of a notebook say to each other.

The runner stands outside the kernel, the pictures and progress of `viz` inside it. Both know these
names, and neither imports the other for them.
"""

# The runner sets it in the environment of its kernels: who runs this notebook, and where to.
# Not TTS_WORKBOOK_*: that door is for parameters.
RUNNER_VARIABLE = "TTS_RUNNER"

# Private display type: the runner takes it out of the kernel's messages, so it never reaches the
# saved notebook.
PROGRESS_MIME = "application/vnd.tts-workbook.progress+json"
