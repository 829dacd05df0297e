"""The runner when all is well: order, parameters, folders, environment; and `--resume`, `--only`
and earlier runs.
"""

import json
import os
import re
import signal
import threading

import nbformat
import pytest

from tests.tts_workbook.runner.workbook_builders import (
    hidden_files,
    record_of,
    run_here,
    title_of,
    verdict_cell,
    write_data,
    write_notebook,
)
from tts_core.errors import WorkbookError
from tts_workbook.pages.run_report import write_report
from tts_workbook.runner import run_notebooks

START = """
from tts_workbook.runner.notebook import Item, Notebook
book = Notebook("{number}", question="What is in <{number}>?", values=globals())
book.environment_line()
"""


def outputs_of(path) -> str:
    cells = nbformat.read(path, as_version=4).cells
    return "".join(
        output.get("text", "")
        for cell in cells
        if cell.cell_type == "code"
        for output in cell.outputs
    )


def test_a_run_from_start_to_report(tmp_path, monkeypatch):
    notebooks = tmp_path / "notebooks"
    write_notebook(
        notebooks,
        "03_overfit",
        START.format(number="03"),
        "import matplotlib.pyplot as plt\nfigure, axes = plt.subplots()\naxes.plot([1, 2])\n"
        "book.save_figure(figure, 'curve', 'Look at the slope.')",
        "import numpy as np\nbook.save_audio(np.sin(np.arange(2205) / 9), 22050, 'tone', 'Listen"
        " for a tone.')",
        "with book.progress(400, 'healthy') as progress:\n    for step in range(400):\n"
        "        progress.update(step + 1, 'mel 0.3')",
        "(book.folder('checkpoints') / 'healthy.bin').write_bytes(b'weights')\n"
        "book.log_metrics({'step': 1, 'mel': 0.5})",
        "import os\nparameters = [name for name in os.environ if"
        " name.startswith('TTS_WORKBOOK_')]\nprint('seen', os.getcwd(), parameters, lr, type(lr))",
        "item = Item('theory_1', 'It can.', 'supported', refuting_experiment='It cannot.')\n"
        "book.verdict('It can.', {'lr': book.parameters.lr}, [item])",
    )
    write_notebook(
        notebooks,
        "07_listen",
        START.format(number="07"),
        "book.verdict('Heard ' + book.upstream('03')['answer'], {})",
        parameters='out = ""',
    )
    write_data(tmp_path / "data")
    monkeypatch.chdir(tmp_path)  # relative paths are the caller's
    # must not reach the kernel, where it could contradict the record
    monkeypatch.setenv("TTS_WORKBOOK_SEED", "9")

    result, printed = run_here(
        tmp_path,
        explicit={"data": "data", "out": "out", "lr": "1e-3"},
        environment={"TTS_WORKBOOK_PROFILE": "smoke", "TTS_WORKBOOK_LR": "5"},
    )

    assert (result.exit_code, result.status, result.out) == (
        0,
        "complete",
        tmp_path / "out",
    ), printed
    record = record_of(result.out)
    assert record["status"] == "complete" and record["failure"] is None
    assert [entry["status"] for entry in record["notebooks"].values()] == ["done", "done"]
    assert record["notebooks"]["03"]["parameters"] == {
        "profile": "smoke",
        "data": str(tmp_path / "data"),
        "out": str(result.out),
        "lr": 0.001,
    }
    # only what it declares
    assert record["notebooks"]["07"]["parameters"] == {"out": str(result.out)}
    assert {"python", "torch", "torchaudio", "papermill"} <= set(record["versions"]) and record[
        "data"
    ]["files"] == 1
    said = outputs_of(result.out / "notebooks" / "03_overfit.ipynb")
    assert f"seen {notebooks} [] 0.001 <class 'float'>" in said
    assert (
        "profile smoke" in said and said.count("healthy") == 1 and "healthy 400/400 mel 0.3" in said
    )
    verdict = json.loads((result.out / "verdicts" / "03.json").read_text())
    assert verdict["metrics"] == {"lr": 0.001} and verdict["provenance"]["artefacts"] == {
        "checkpoints/healthy.bin": 7
    }
    assert json.loads((result.out / "metrics" / "03.jsonl").read_text()) == {"step": 1, "mel": 0.5}
    page = (result.out / "report.html").read_text()
    assert title_of(result.out) == "Overfit Workbook"
    assert "Heard It can." in page and "What is in &lt;03&gt;?" in page
    order = ("data:image/png;base64,", "Look at the slope.</figcaption>", "data:audio/wav;base64,")
    places = [page.index(words) for words in order]
    assert places == sorted(places)
    assert not re.search(r"""(src|href)=["'](?!data:|#)""", page) and "<script" not in page
    assert hidden_files(result.out) == []
    assert sorted(path.name for path in notebooks.iterdir()) == [
        "03_overfit.ipynb",
        "07_listen.ipynb",
    ]

    (result.out / "checkpoints" / "healthy.bin").unlink()  # a later loss is noticed
    with pytest.raises(
        WorkbookError, match=r"its file checkpoints/healthy\.bin is missing"
    ) as caught:
        run_here(tmp_path, explicit={"lr": "1e-3"}, only="07")
    assert "tts-workbook run --only 03,07" in str(caught.value) and f"--out {result.out}" in str(
        caught.value
    )


def test_widgets_that_work_neither_fail_nor_hang(tmp_path):
    """Plain nbclient waits for ever in about one such cell of thirty: its answer to the widget
    swallows a wake-up.
    """
    cell = "import ipywidgets\n@ipywidgets.interact(x=3)\ndef show(x):\n    print('it works', x)"
    path = write_notebook(tmp_path / "notebooks", "01_check", *[cell] * 60, verdict_cell("01"))
    watchdog = threading.Timer(120, os.kill, (os.getpid(), signal.SIGINT))
    watchdog.start()
    try:
        result, printed = run_here(tmp_path)
    finally:
        watchdog.cancel()
    assert result.status == "complete", printed
    assert "it works 3" in (result.out / "notebooks" / path.name).read_text()


def done_states(out) -> dict[str, str]:
    """Number -> the token of the execution that counts."""
    return {
        path.stem: json.loads(path.read_text())["token"]
        for path in sorted((out / "state").glob("*.json"))
    }


def test_resume_reruns_exactly_what_changed(tmp_path, monkeypatch):
    notebooks = tmp_path / "notebooks"
    write_notebook(notebooks, "01_check", verdict_cell("01"), parameters='out = ""\nlr = None')
    no_old_report = "assert not (pathlib.Path(out) / 'report.html').exists()"
    write_notebook(
        notebooks,
        "02_audit",
        verdict_cell("02") + no_old_report,
        parameters='out = ""\nlr = 0.5\nseed = 1',
    )
    monkeypatch.setattr(run_notebooks, "hash_source", lambda: "one")
    out = run_here(tmp_path, explicit={"lr": 0.25})[0].out
    first = done_states(out)
    assert sorted(first) == ["01", "02"]

    def reruns(**options) -> set[str]:
        before = done_states(out)
        result, _ = run_here(tmp_path, resume=True, **options)
        assert result.exit_code == 0
        return {number for number, token in done_states(out).items() if token != before[number]}

    assert reruns(explicit={"lr": "2.5e-1"}) == set()
    assert reruns(explicit={"lr": 0.25, "seed": 7}) == {"02"}  # 01 does not declare it
    write_notebook(
        notebooks,
        "01_check",
        "'another cell'",
        verdict_cell("01"),
        parameters='out = ""\nlr = None',
    )
    assert reruns(explicit={"lr": 0.25, "seed": 7}) == {"01"}
    (tmp_path / "data" / "new.wav").write_bytes(b"RIFF")
    monkeypatch.setattr(run_notebooks, "hash_source", lambda: "two")
    assert reruns(explicit={"lr": 0.25, "seed": 7}) == {"01", "02"}
    # every replaced result is kept
    assert len(list((out / "superseded").glob("*/verdicts/*.json"))) == 4


def test_upstream_changes_and_only(tmp_path, monkeypatch):
    notebooks = tmp_path / "notebooks"
    write_notebook(notebooks, "03_overfit", verdict_cell("03"))
    write_notebook(notebooks, "07_listen", verdict_cell("07"), parameters='out = ""\nlr = None')
    with pytest.raises(WorkbookError, match="it has not been run there") as caught:
        run_here(tmp_path, only="07")
    assert (
        f"tts-workbook run --only 03,07 --notebooks {notebooks} --data {tmp_path / 'data'}"
        in str(caught.value)
    )
    assert not (tmp_path / "out").exists()

    out = run_here(tmp_path, only="07,03")[0].out  # runs in order whatever the order given
    assert record_of(out)["selection"] == ["03", "07"]
    first = done_states(out)
    with pytest.raises(WorkbookError, match=r"other inputs \(lr None -> 0.5\)"):
        run_here(tmp_path, only="07", explicit={"lr": 0.5})

    monkeypatch.setattr(run_notebooks, "hash_source", lambda: "another")
    result, printed = run_here(tmp_path, only="07")
    assert result.exit_code == 0 and "an earlier state of the source" in printed
    assert done_states(out)["03"] == first["03"] and done_states(out)["07"] != first["07"]
    assert record_of(out)["notebooks"]["03"]["status"] == "stale"
    assert title_of(out) == "Overfit Workbook (partly stale)"


def test_an_earlier_run_is_kept_and_foreign_folders_are_refused(tmp_path):
    write_notebook(tmp_path / "notebooks", "01_check", verdict_cell("01"))
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.tex").write_text("years of work")
    for options in ({}, {"resume": True}, {"only": "01"}):
        with pytest.raises(WorkbookError, match="holds no run"):
            run_here(tmp_path, out="thesis", **options)
    with pytest.raises(WorkbookError, match="inside the data folder"):
        run_here(tmp_path, out="data/runs")
    with pytest.raises(WorkbookError, match="is a file"):
        run_here(tmp_path, out="notebooks/01_check.ipynb")
    assert [path.name for path in (tmp_path / "thesis").iterdir()] == ["chapter.tex"]

    out = run_here(tmp_path, out="latest")[0].out
    started = re.sub(r"[-:]|\+.*", "", record_of(out)["started"]).replace("T", "-")
    token = done_states(out)
    result, printed = run_here(tmp_path, out="latest")
    assert done_states(tmp_path / started) == token and f"kept in {tmp_path / started}" in printed
    assert done_states(result.out) != token and record_of(result.out)["status"] == "complete"


def test_results_of_a_notebook_that_had_the_number_before_do_not_count(tmp_path, monkeypatch):
    """A run folder from before two notebooks exchanged their numbers."""
    monkeypatch.setattr(run_notebooks, "hash_source", lambda: "one")
    notebooks = tmp_path / "notebooks"
    for name in ("01_check", "08_findings", "09_diagnose"):
        write_notebook(notebooks, name, verdict_cell(name[:2], f"from {name}"))
    out = run_here(tmp_path)[0].out
    write_report(out)  # of an old folder, by itself
    assert title_of(out) == "Overfit Workbook"
    for old, new in (("08_findings", "09_findings"), ("09_diagnose", "08_diagnose")):
        (notebooks / f"{old}.ipynb").unlink()
        write_notebook(notebooks, new, verdict_cell(new[:2], f"from {new}"))
    write_report(out)
    assert title_of(out) == "Overfit Workbook"
    first = done_states(out)

    result, printed = run_here(tmp_path, only="09")  # the findings do not read the old ones
    assert result.exit_code == 0, printed
    for new, old in (("08_diagnose", "08_findings"), ("09_findings", "09_diagnose")):
        note = f"note: {new}: what is there is of {old}, which had the number of {new} when it ran"
        assert f"{note}; it does not count any more and is kept in superseded/" in printed
    assert sorted(done_states(out)) == ["01", "09"] and record_of(out)["notebooks"].keys() == {
        "01",
        "09",
    }
    assert json.loads((out / "state" / "09.json").read_text())["parts"]["upstream"].keys() == {"01"}
    kept = {path.name for path in (out / "superseded").glob("*/notebooks/*")}
    assert kept == {"08_findings.ipynb", "09_diagnose.ipynb"}

    result, printed = run_here(tmp_path, resume=True)
    assert result.exit_code == 0 and title_of(out) == "Overfit Workbook"
    assert "what it reads" in printed and done_states(out)["01"] == first["01"]
    verdict = json.loads((out / "verdicts" / "08.json").read_text())
    assert verdict["answer"] == "from 08_diagnose"
