"""Cells below a subject's study say why they do not apply, in a kernel as in the transformer; what
starts a notebook runs.
"""

import re

import pytest
from jupyter_client.manager import start_new_kernel

from tts_workbook.runner.skipped_cells import reason_of, skipper

STARTS = """
from tts_workbook.runner import skipped_cells
def Notebook(number): skipped_cells.run_all_cells()
def study_subject(book): skipped_cells.skip_cells("mine.py:subject", "it is about our presets")
"""


def test_a_cell_becomes_the_line_that_says_why():
    transform = skipper("mine.py:subject", "it is about 'our' presets")
    assert transform(["# Subject: it opens the clip\n", "clip = open()\n"]) == [
        "print('does not apply to mine.py:subject: it opens the clip')\n"
    ]
    assert "it is about 'our' presets" in transform(["clip = open()\n"])[0]
    assert (
        "it is about 'our' presets"
        in transform(["clip = open()  # Subject: not the first line's own\n"])[0]
    )
    assert (
        reason_of("\n# Subject: a\n# Subject: b") == "a" and reason_of("x = 1\n# Subject: a") == ""
    )


@pytest.mark.parametrize(
    "source",
    [
        "",
        "   \n",
        'profile = "quick"\nsubject = ""',
        'out = ""',
        'book = Notebook("03", "Can it?", globals())',
        "study = study_subject(book)",
        "# Subject: run\nprint(study.lab.courses)",
    ],
)
def test_what_starts_a_notebook_runs(source):
    lines = source.splitlines(keepends=True)
    assert skipper("mine.py:subject", "no")(lines) is lines


def test_in_a_kernel_cells_are_skipped_from_the_study_on_until_a_notebook_starts_anew():
    manager, client = start_new_kernel(kernel_name="python3")
    try:

        def run(source):
            said = []
            reply = client.execute_interactive(
                source,
                timeout=60,
                output_hook=lambda message: said.append(message["content"].get("text", "")),
            )
            assert reply["content"]["status"] == "ok", source
            return "".join(said)

        run(STARTS)
        assert run("study_subject(None); print('studied')") == "studied\n"
        assert (
            run("# Subject: it trains\nprint(1)\nundefined()")
            == "does not apply to mine.py:subject: it trains\n"
        )
        assert (
            run("%%time\nprint(1)")
            == run("print(1)")
            == "does not apply to mine.py:subject: it is about our presets\n"
        )
        assert run("# Subject: run\nprint(2)") == "2\n"
        run('profile = "quick"\nsubject = ""')
        assert re.search("quick", run("# Subject: run\nprint(profile)"))
        run("study_subject(None)")  # twice, and still only one line
        assert run("print(1)").count("does not apply") == 1
        assert run('Notebook("03")\nprint("anew")') == "anew\n" and run("print(3)") == "3\n"
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
