"""environment.yml, pyproject.toml, constraints.txt, the Makefile and the README agree."""

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

from tests.conftest import ROOT

CARD = {
    "torch",
    "torchaudio",
    "jupyterlab",
    "ipywidgets",
    "matplotlib",
    "librosa",
    "papermill",
    "nbval",
}
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
README = (ROOT / "README.md").read_text()
MAKEFILE = (ROOT / "Makefile").read_text()


def name_of(requirement: str) -> str:
    return re.match(r"[A-Za-z0-9_.-]+", requirement).group().lower().replace("_", "-")


def declared() -> dict[str, list[str]]:
    """Requirement names by where pyproject declares them."""
    groups = {"core": PROJECT["dependencies"], **PROJECT["optional-dependencies"]}
    return {
        group: [name_of(requirement) for requirement in requirements]
        for group, requirements in groups.items()
    }


def pinned() -> dict[str, str]:
    lines = [
        line.split("#")[0].strip() for line in (ROOT / "constraints.txt").read_text().splitlines()
    ]
    return {name_of(line): line.split("==")[1] for line in lines if line}


def test_distribution_package_script_and_extras():
    assert PROJECT["name"] == "tts-overfit-workbook"
    assert PROJECT["scripts"] == {"tts-workbook": "tts_workbook.cli:main"}
    assert PROJECT["entry-points"]["tts_core"].keys() == {"aligner", "phonemizer", "draw_sample"}
    assert set(PROJECT["optional-dependencies"]) == {
        "notebooks",
        "test",
        "lint",
        "bench",
        "cluster",
        "phonemes",
        "tensorboard",
        "transformers",
        "vocoder",
    }


def test_environment_yml_shows_the_card_and_installs_the_package_with_its_extras():
    dependencies = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    pip = next(entry["pip"] for entry in dependencies if isinstance(entry, dict))
    assert {name_of(line) for line in pip if not line.startswith("-")} >= CARD
    assert "-e .[notebooks,test]" in pip and "--constraint constraints.txt" in pip
    assert "pip" in dependencies
    python = next(entry for entry in dependencies if str(entry).startswith("python="))
    assert PROJECT["requires-python"] == f">={python.split('=')[1]}"


def test_what_the_environment_names_is_declared_in_pyproject():
    groups = declared()
    assert {name for group in ("core", "notebooks", "test") for name in groups[group]} >= CARD


def test_every_declared_package_is_pinned_and_the_pin_satisfies_it():
    from packaging.requirements import Requirement

    pins = pinned()
    for requirements in (PROJECT["dependencies"], *PROJECT["optional-dependencies"].values()):
        for line in requirements:
            requirement = Requirement(line)
            name = requirement.name.lower()
            if name == PROJECT["name"]:
                continue
            assert name in pins, f"{line} is not in constraints.txt"
            assert requirement.specifier.contains(pins[name]), f"{line} against {pins[name]}"


def test_installed_versions_are_the_pinned_ones():
    from importlib.metadata import version

    for name in CARD | {
        "pocketsphinx",
        "praatio",
        "safetensors",
        "pytest",
        "nbclient",
        "ipykernel",
    }:
        assert version(name).split("+")[0] == pinned()[name], name


def test_every_dependency_line_gives_a_reason():
    text = (ROOT / "pyproject.toml").read_text().partition("[project.scripts]")[0]
    lines = [line for line in text.splitlines() if re.match(r'\s+"[a-z].*",', line)]
    assert len(lines) > 15
    assert [
        line for line in lines if "#" not in line or len(line.split("#", 1)[1].strip()) < 8
    ] == []


@pytest.mark.parametrize(
    "target", ("workbook", "lint", "test", "test-full", "lab", "evidence", "bench", "clean")
)
def test_make_targets_exist_and_set_up_the_environment_first(target):
    rule = re.search(rf"^{target}:(.*)$", MAKEFILE, re.MULTILINE)
    first = {"clean": "", "test": "lint"}.get(target, "$(STAMP)")
    assert rule and first in rule.group(1)


def test_what_make_test_leaves_out_make_test_full_runs():
    """Every test is in one of the three selections, so nothing is proved nowhere."""
    selections = re.findall(r'pytest tests -m "?([a-z ]+?)"?(?: --|\n)', MAKEFILE)
    assert selections == ["not full", "full and not alone", "alone"]


@pytest.mark.parametrize("variable", ("PROFILE", "DATA", "CLIP", "OUT"))
def test_make_workbook_hands_on_its_variables(variable):
    shown = subprocess.run(
        ["make", "-n", "workbook", f"{variable}=quick"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert re.search(rf"tts-workbook run .*--{variable.lower()} \"?quick\"?", shown)


def test_the_readme_puts_the_two_commands_first_and_ci_runs_its_test_command():
    blocks = re.findall(r"```(?:bash|sh)?\n(.*?)```", README, re.DOTALL)
    first = [line.split("#")[0].strip() for line in blocks[0].splitlines() if line.strip()]
    assert first[:2] == ["make workbook", "make test"]
    ci = (ROOT / ".ci" / "run").read_text().strip().splitlines()
    assert ci[-2:] == ["make test", "make test-full"]


def test_every_command_in_the_readme_exists():
    from tts_workbook.cli import main

    commands = set(re.findall(r"tts-workbook ([a-z]+)", README))
    assert {"run", "check", "align"} <= commands
    for command in commands:
        with pytest.raises(SystemExit) as stop:
            main([command, "--help"])
        assert stop.value.code == 0
    targets = set(re.findall(r"^make ([a-z]+)", README, re.MULTILINE))
    assert all(re.search(rf"^{target}:", MAKEFILE, re.MULTILINE) for target in targets)


CORE_NEEDS = {
    "torch",
    "torchaudio",
    "soundfile",
    "numpy",
    "safetensors",
    "praatio",
    "filelock",
}


def imported_packages(file: Path) -> set[str]:
    """Top-level names of all imports in a source file, those inside functions too."""
    names = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add(node.module.split(".")[0])
    return names


def test_the_core_imports_the_standard_library_itself_and_seven_packages():
    allowed = CORE_NEEDS | {"tts_core"} | sys.stdlib_module_names
    for file in (ROOT / "tts_core").rglob("*.py"):
        assert imported_packages(file) <= allowed, file
    needed = [name_of(requirement) for requirement in PROJECT["dependencies"]]
    assert set(needed[: len(CORE_NEEDS)]) == CORE_NEEDS


def test_every_module_of_the_core_loads_without_the_other_packages_of_the_distribution():
    """Nothing that is declared beside the seven may be found, nor the workbook."""
    code = """
import importlib, pkgutil, sys
blocked = set(sys.argv[1:])
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in blocked:
            raise ModuleNotFoundError(f"the core may not import {name}", name=name)
sys.meta_path.insert(0, Block())
import tts_core
for module in pkgutil.walk_packages(tts_core.__path__, "tts_core."):
    importlib.import_module(module.name)
"""
    modules = {
        "IPython",
        "PIL",
        "dask",
        "distributed",
        "espeakng_loader",
        "ipywidgets",
        "jinja2",
        "jiwer",
        "librosa",
        "matplotlib",
        "nbclient",
        "nbformat",
        "papermill",
        "phonemizer",
        "pocketsphinx",
        "pystoi",
        "rich",
        "scipy",
        "tensorboard",
        "tqdm",
        "tts_workbook",
        "vocos",
    }
    result = subprocess.run(
        [sys.executable, "-c", code, *sorted(modules)], cwd=ROOT, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr


# --- the direction of imports, which `lint-imports` holds -----------------------------------------

CONTRACTS = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
# from the ground up: a room may import what stands before it (docs/ARCHITECTURE.md)
ROOMS = (
    "corpus",
    "subject",
    "measure",
    "lab",
    "faults",
    "diagnosis",
    "trials",
    "runner",
    "pages",
    "cli",
)


def contract(kind: str, **wanted) -> dict:
    """The one contract of this kind with these settings."""
    found = [
        contract
        for contract in CONTRACTS["contracts"]
        if contract["type"] == kind
        and all(contract.get(name) == value for name, value in wanted.items())
    ]
    assert len(found) == 1, (kind, wanted)
    return found[0]


def test_no_arrow_between_the_rooms_is_left_out():
    layers = contract("layers", containers=["tts_workbook"])["layers"]
    assert list(reversed(layers)) == list(ROOMS)
    packages = {file.parent.name for file in (ROOT / "tts_workbook").glob("*/__init__.py")}
    assert packages - set(ROOMS) == {"viz"}


def test_what_several_rooms_share_imports_no_room():
    """Files beside the rooms, such as the hash of the source: every room may import them."""
    for file in (ROOT / "tts_workbook").glob("*.py"):
        if file.stem not in ("cli", "__init__"):
            assert "tts_workbook" not in imported_packages(file), file


def test_the_core_stands_alone():
    assert set(CONTRACTS["root_packages"]) == {"tts_core", "tts_workbook"}
    assert CONTRACTS["include_external_packages"]
    contract("forbidden", source_modules=["tts_core"], forbidden_modules=["tts_workbook"])


def test_pictures_are_drawn_from_records_and_by_those_who_may():
    rooms = {f"tts_workbook.{room}" for room in ROOMS}
    draws = contract("forbidden", source_modules=["tts_workbook.viz"])
    assert set(draws["forbidden_modules"]) == rooms
    asks = [
        contract
        for contract in CONTRACTS["contracts"]
        if "tts_workbook.viz" in contract.get("protected_modules", ())
        or contract.get("forbidden_modules") == ["tts_workbook.viz"]
    ]
    assert len(asks) == 1


def test_nothing_names_a_registry_host():
    tracked = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True
    ).stdout.split()
    hosts = (
        "pypi." + "org",
        "download.py" + "torch",
        "files.python" + "hosted",
        "deb.debian" + ".org",
    )
    for name in tracked:
        if name.endswith((".py", ".toml", ".txt", ".yml", ".md", ".ipynb", "Makefile", "run")):
            text = (ROOT / name).read_text(errors="replace")
            assert not any(host in text for host in hosts), name
