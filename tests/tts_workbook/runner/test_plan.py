"""Discovery, selection, keys and hashes."""

import pytest

from tests.tts_workbook.runner.workbook_builders import write_data, write_notebook
from tts_core.errors import WorkbookError
from tts_core.file_hashes import hash_package
from tts_workbook.runner import plan
from tts_workbook.runner.data_hash import hash_data
from tts_workbook.runner.parameters import Parameters


def sources_in(folder, *names, **options):
    for name in names:
        write_notebook(folder, name, "1", **options)
    return plan.discover(folder)


def test_notebooks_are_found_in_order_and_selected_by_number(tmp_path):
    (tmp_path / "LOG.md").write_text("dated findings")
    sources = sources_in(tmp_path, "09_findings", "01_check_data", "03_overfit", "07_listen")
    assert list(sources) == ["01", "03", "07", "09"] and sources["03"].name == "03_overfit"
    assert plan.notebooks_asked_for(sources, None) == ["01", "03", "07", "09"]
    assert (
        plan.notebooks_asked_for(sources, "7, 03")
        == ["03", "07"]
        == plan.notebooks_asked_for(sources, ["07_listen.ipynb", "3"])
    )
    for only in ("08", "03-07", "x"):
        with pytest.raises(
            WorkbookError, match=f"--only {only}: there is no such notebook; there are 01, 03"
        ):
            plan.notebooks_asked_for(sources, only)
    with pytest.raises(WorkbookError, match="name at least one"):
        plan.notebooks_asked_for(sources, " , ")
    assert plan.upstream_of("07", sources) == ("03",) and plan.upstream_of("09", sources) == (
        "01",
        "03",
        "07",
    )


def test_the_findings_read_every_notebook_before_them(tmp_path):
    sources = sources_in(tmp_path, "03_overfit", "07_listen", "09_findings", "08_diagnose")
    assert list(sources) == plan.notebooks_asked_for(sources, None) == ["03", "07", "08", "09"]
    assert plan.notebooks_asked_for(sources, "09,08") == ["08", "09"]
    assert (
        plan.upstream_of("09", sources) == ("03", "07", "08")
        and plan.upstream_of("08", sources) == ()
    )
    assert plan.before("08", sources) == ["03", "07"]
    assert plan.before("09", ("09", "10", "02")) == ["02"]


def test_folders_that_cannot_be_run(tmp_path):
    with pytest.raises(WorkbookError, match=r"no notebooks NN_name\.ipynb here"):
        plan.discover(tmp_path / "nowhere")
    with pytest.raises(WorkbookError, match="two notebooks are number 01"):
        sources_in(tmp_path / "a", "01_check", "01_again")
    with pytest.raises(WorkbookError, match="notebook 07 reads notebook 03, but there is none"):
        plan.notebooks_asked_for(sources_in(tmp_path / "b", "07_listen"), None)
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "01_check.ipynb").write_text("{ not json")
    with pytest.raises(WorkbookError, match=r"01_check\.ipynb: not a notebook that can be read"):
        _ = plan.discover(tmp_path / "c")["01"].declared


def test_parameters_cell_is_checked_before_anything_runs(tmp_path):
    for parameters, complaint in (
        ("stpes = 5", r"did you mean steps\?"),
        ("lr = 'fast'", "lr = 'fast'"),
        ("lr = f()", "must hold only"),
    ):
        write_notebook(tmp_path, "01_check", parameters=parameters)
        with pytest.raises(WorkbookError, match=complaint):
            _ = plan.discover(tmp_path)["01"].declared
    write_notebook(tmp_path, "01_check", "lr = 1", parameters='out = ""', tags={0: ["parameters"]})
    with pytest.raises(WorkbookError, match="2 cells are tagged"):
        _ = plan.discover(tmp_path)["01"].declared
    write_notebook(tmp_path, "01_check", "1", parameters=None)
    assert plan.discover(tmp_path)["01"].declared == {}


def test_key_depends_on_everything_that_matters_and_on_no_path(tmp_path):
    def key(
        cell="1",
        lr=None,
        clip="",
        out="/out",
        data_path="/data",
        package="p",
        data="d",
        upstream=None,
        parameters='out = ""\ndata = ""\nlr = None',
    ):
        write_notebook(tmp_path, "01_check", cell, parameters=parameters)
        settled = Parameters(data=tmp_path / data_path, out=tmp_path / out, lr=lr, clip=clip)
        return plan.key_of(
            plan.key_parts(plan.discover(tmp_path)["01"], settled, package, data, upstream or {})
        )

    base = key()
    assert (
        base
        == key()
        == key(out="/elsewhere", data_path="/moved")
        == key(clip="not declared, so it cannot matter")
    )
    others = [
        key(cell="2"),
        key(lr=0.5),
        key(package="q"),
        key(data="e"),
        key(upstream={"03": "k"}),
        key(parameters='out = ""'),
    ]
    assert len({base, *others}) == 7


def test_data_hash_sees_contents_names_and_linked_folders_but_no_hidden_files(tmp_path):
    data = write_data(tmp_path / "data")
    base = hash_data(data)
    assert base["files"] == 1 and base["bytes"] == len("a|b|b\n")
    (data / ".cache").mkdir()
    (data / ".cache" / "x").write_text("x")
    assert hash_data(data) == base
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "a.wav").write_text("RIFF")
    (data / "wavs").symlink_to(tmp_path / "elsewhere")
    linked = hash_data(data)
    (tmp_path / "elsewhere" / "a.wav").write_text("RIFX")
    changed = hash_data(data)
    (tmp_path / "elsewhere" / "a.wav").rename(tmp_path / "elsewhere" / "b.wav")
    assert len({base["hash"], linked["hash"], changed["hash"], hash_data(data)["hash"]}) == 4
    (tmp_path / "elsewhere" / "loop").symlink_to(data)
    assert hash_data(data)["files"] == 2
    (tmp_path / "empty").mkdir()
    for folder, complaint in (("nowhere", "does not exist"), ("empty", "is empty")):
        with pytest.raises(WorkbookError, match=f"{complaint}. Give --data DIR"):
            hash_data(tmp_path / folder)


def test_package_hash_follows_source_and_templates(tmp_path):
    (tmp_path / "a.py").write_text("x = 1")
    seen = {hash_package(tmp_path)}
    (tmp_path / "page.html.j2").write_text("<p>")
    seen.add(hash_package(tmp_path))
    (tmp_path / "notes.txt").write_text("no source")
    seen.add(hash_package(tmp_path))
    assert len(seen) == 2
