"""One schema for every door: a text means the same value through each, and mistakes are named
before anything runs.
"""

import math
from pathlib import Path

import pytest
from hypothesis import given, strategies

from tts_core.errors import WorkbookError
from tts_workbook.runner import parameters
from tts_workbook.runner.parameters import (
    FIELDS,
    PROFILES,
    Parameters,
    bundled_data,
    read_assignments,
    read_given,
    read_value,
    repository_root,
    settle,
    settle_in_notebook,
)
from tts_workbook.runner.parameters_cell import parameters_among, read_cell

HERE = Path("/somewhere")


def through_command_line(name: str, text: str):
    given = read_given(read_assignments([f"{name}={text}"]), {}, HERE)
    return getattr(settle(given, {}, HERE / "out", HERE, "cell"), name)


def through_environment(name: str, text: str):
    given = read_given({}, {f"TTS_WORKBOOK_{name.upper()}": text, "UNRELATED": "x"}, HERE)
    return getattr(settle(given, {}, HERE / "out", HERE, "cell"), name)


def through_cell(name: str, text: str):
    return getattr(
        settle({}, read_cell(f"{name} = {text!r}", "cell"), HERE / "out", HERE, "cell"), name
    )


def inside_a_notebook(name: str, text: str):
    return getattr(settle_in_notebook({name: text}, {}), name)


DOORS = [through_command_line, through_environment, through_cell, inside_a_notebook]


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize(
    "name, text, value",
    [
        ("lr", "1e-3", 0.001),
        ("lr", "2", 2.0),
        ("lr", "none", None),
        ("steps", "500", 500),
        ("steps", "", None),
        ("seed", "0", 0),
        ("gradient_checkpointing", "false", False),
        ("gradient_checkpointing", "0", False),
        ("gradient_checkpointing", "no", False),
        ("gradient_checkpointing", "True", True),
        ("gradient_checkpointing", "yes", True),
        ("precision", "bf16", "bf16"),
        ("profile", "smoke", "smoke"),
        ("language", "ru", "ru"),
        ("clip", "0930", "0930"),
        ("data", "/absolute/path", Path("/absolute/path")),
        ("threads", "2", 2),
        ("executor", "inline", "inline"),
        ("executor", "dask", "dask"),
    ],
)
def test_a_text_is_the_same_typed_value_through_every_door(door, name, text, value):
    read = door(name, text)
    assert (read == value and type(read) is type(value)) or (
        isinstance(value, Path) and read == value
    )


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize(
    "name, text",
    [
        ("lr", "fast"),
        ("lr", "-1e-3"),
        ("lr", "0"),
        ("lr", "nan"),
        ("lr", "inf"),
        ("steps", "0"),
        ("steps", "1.5"),
        ("steps", "1e3"),
        ("seed", "-1"),
        ("gradient_checkpointing", "falsch"),
        ("gradient_checkpointing", "2"),
        ("gradient_checkpointing", "on"),
        ("precision", "fp8"),
        ("profile", "none"),
        ("profile", "Quick"),
        ("language", "English!"),
        ("threads", "0"),
        ("executor", "slurm"),
        ("scheduler", "10.0.0.5"),
        ("scheduler", "tcp://10.0.0.5"),
        ("scheduler", "tcp://a b:1"),
        ("scheduler", "http://a:1/status"),
        ("data", "a\0b"),
    ],
)
def test_ill_typed_values_are_refused_by_name_through_every_door(door, name, text):
    with pytest.raises(WorkbookError, match=f"{name} = .* but it must be "):
        door(name, text)


@pytest.mark.parametrize("door", DOORS[:3])
@pytest.mark.parametrize(
    "name, meant",
    [("stpes", "steps"), ("learning_lr", "lr"), ("gradient_checkpoint", "gradient_checkpointing")],
)
def test_unknown_names_are_refused_with_a_suggestion(door, name, meant):
    with pytest.raises(
        WorkbookError,
        match=rf"no parameter '{name}'( \(did you mean {meant}\?\))?; there are profile, data",
    ):
        door(name, "1")
    with pytest.raises(WorkbookError, match=r"did you mean steps\?"):
        door("stpes", "1")


@pytest.mark.parametrize("value", [True, [1], {"a": 1}, 1.5, b"1"])
def test_python_values_of_another_type_are_refused(value):
    with pytest.raises(WorkbookError, match="steps = "):
        read_value("steps", value, "cell")


def test_assignments_without_a_name_or_given_twice():
    for pair in ("lr", "=1", " =1"):
        with pytest.raises(WorkbookError, match="write name=value"):
            read_assignments([pair])
    with pytest.raises(WorkbookError, match="lr is given twice, as '1' and '2'"):
        read_assignments(["lr=1", "lr=2"])
    assert read_assignments(["clip=a=b"]) == {"clip": "a=b"}


def test_explicit_beats_environment_beats_cell_beats_default():
    environment = {"TTS_WORKBOOK_SEED": "2", "TTS_WORKBOOK_STEPS": "20", "TTS_WORKBOOK_CLIP": ""}
    given = read_given({"seed": "1", "lr": None, "profile": ""}, environment, HERE)
    assert given == {"seed": 1, "steps": 20}
    settled = settle(
        given, {"seed": 3, "steps": 30, "threads": 4, "clip": "0930"}, HERE / "out", HERE, "cell"
    )
    assert (settled.seed, settled.steps, settled.threads, settled.clip, settled.profile) == (
        1,
        20,
        4,
        "0930",
        "quick",
    )


def test_in_a_notebook_a_changed_cell_beats_the_environment_and_an_untouched_one_does_not():
    environment = {
        "TTS_WORKBOOK_PROFILE": "smoke",
        "TTS_WORKBOOK_STEPS": "7",
        "TTS_WORKBOOK_OUT": "runs/nbval",
    }
    settled = settle_in_notebook(
        {"profile": "quick", "steps": 9, "out": "", "data": ""}, environment
    )
    assert (settled.profile, settled.steps, settled.out) == (
        "smoke",
        9,
        repository_root() / "runs" / "nbval",
    )


def test_paths_resolve_against_the_caller_and_in_notebooks_against_the_repository(
    tmp_path, monkeypatch
):
    assert read_given({"data": "voice", "out": "../x"}, {}, Path("/a/b")) == {
        "data": "/a/b/voice",
        "out": "/a/x",
    }
    root = Path(__file__).resolve().parents[3]
    # as different from the repository as papermill's folder is from JupyterLab's
    monkeypatch.chdir(tmp_path)
    settled = settle_in_notebook({"data": "data_samples/allison", "out": ""}, {})
    assert (settled.data, settled.out) == (root / "data_samples" / "allison", root / "runs" / "lab")
    assert settle_in_notebook({"vocoder": "voices/vocos"}, {}).vocoder == str(
        root / "voices" / "vocos"
    )
    assert settle_in_notebook({"vocoder": ""}, {}).vocoder == ""
    assert (
        settle_in_notebook({"data": ""}, {}).data
        == bundled_data()
        == root / "data_samples" / "librivox"
    )


def test_digest_ignores_the_places_of_data_and_output_and_nothing_else():
    base = Parameters(data=Path("/a"), out=Path("/b"))
    assert base.digest == Parameters(data=Path("/c"), out=Path("/d")).digest
    changed = {
        "profile": "seed",
        "clip": "x",
        "seed": 1,
        "steps": 1,
        "lr": 0.5,
        "precision": "fp32",
        "gradient_checkpointing": True,
        "threads": 1,
        "language": "en",
        "vocoder": "/v",
        "subject": "m:s",
        "subjects": "seed,m:s",
    }
    assert set(changed) == {name for name, field in FIELDS.items() if field.in_key}
    digests = {
        Parameters(data=Path("/a"), out=Path("/b"), **{name: value}).digest
        for name, value in changed.items()
    }
    assert len(digests | {base.digest}) == len(changed) + 1


def test_schema_agrees_with_the_profiles_and_executors_that_there_are():
    from tts_core.config import PROFILE_SIZES
    from tts_workbook.trials.executors import EXECUTORS

    assert set(PROFILES) == set(PROFILE_SIZES)
    assert parameters.EXECUTORS == EXECUTORS


def test_the_executor_changes_no_number_and_so_no_key():
    base = Parameters(data=Path("/a"), out=Path("/b")).digest
    assert Parameters(data=Path("/a"), out=Path("/b"), executor="inline").digest == base
    assert (
        Parameters(data=Path("/a"), out=Path("/b"), executor="dask", scheduler="tcp://a:1").digest
        == base
    )


@pytest.mark.parametrize(
    "address", ["tcp://10.0.0.5:8786", "tls://head.cluster:8786", "head:8786", "tcp://[::1]:8786"]
)
def test_a_scheduler_goes_with_dask_through_every_door(address):
    together = {"executor": "dask", "scheduler": address}
    assert settle_in_notebook(together, {}).scheduler == address
    assert (
        settle(read_given(together, {}, HERE), {}, HERE / "out", HERE, "cell").scheduler == address
    )
    assert settle({}, together, HERE / "out", HERE, "cell").scheduler == address
    environment = {"TTS_WORKBOOK_EXECUTOR": "dask", "TTS_WORKBOOK_SCHEDULER": address}
    assert settle_in_notebook({"executor": "auto"}, environment).scheduler == address
    with pytest.raises(
        WorkbookError,
        match=r"scheduler = .* goes with executor = 'dask' alone, but executor is 'auto'",
    ):
        settle_in_notebook({"scheduler": address}, {})
    with pytest.raises(
        WorkbookError, match=r"command line: scheduler = .* but executor is 'workers'"
    ):
        settle({**together, "executor": "workers"}, {}, HERE / "out", HERE, "command line")


@given(
    strategies.text()
    | strategies.floats()
    | strategies.integers()
    | strategies.booleans()
    | strategies.none()
)
def test_no_value_is_taken_for_a_learning_rate_that_is_not_one(value):
    try:
        read = read_value("lr", value, "anywhere")
    except WorkbookError:
        return
    assert read is None or (type(read) is float and math.isfinite(read) and read > 0)


@pytest.mark.parametrize(
    "source",
    [
        "lr = 1 / 3",
        "import os",
        "lr = profile",
        "lr = 1; print(lr)",
        "lr = seed = 1",
        "lr: float",
        "lr =",
    ],
)
def test_a_parameters_cell_holds_nothing_but_literals(source):
    with pytest.raises(WorkbookError, match="must hold only lines like"):
        read_cell(source, "03.ipynb")


def test_parameters_cell_is_read_without_running_it():
    source = '# a comment\nlr = 1e-3   # step size\nsteps: int = 5\nclip = "a"'
    assert read_cell(source, "x") == {"lr": 0.001, "steps": 5, "clip": "a"}


def test_a_misspelt_name_in_an_executed_parameters_cell_is_noticed():
    history = ["", "profile = 'quick'\nstpes = 5", "import os"]
    with pytest.raises(WorkbookError, match=r"did you mean steps\?"):
        parameters_among({"In": history, "profile": "quick", "stpes": 5})
    mended = [*history, "profile = 'quick'\nsteps = 5", "n_bins = 3"]
    values = {"In": mended, "profile": "quick", "steps": 5, "n_bins": 3}
    assert parameters_among(values) == {"profile": "quick", "steps": 5}
    # a notebook's own variables, when its first cells run again
    again = {**values, "subject": object(), "lr": "a curve"}
    assert parameters_among(again) == {"profile": "quick", "steps": 5}
