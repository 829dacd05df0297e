"""A real Chromium, and a real JupyterLab of our own: its port, token, settings and run folder are
the test's alone.
"""

import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.conftest import ROOT

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = [
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
PATIENCE = 240  # seconds for whatever the machine is busy with; nothing here asserts on time
START_ATTEMPTS = 3
OWN_FOLDERS = (
    "JUPYTER_RUNTIME_DIR",
    "JUPYTER_CONFIG_DIR",
    "JUPYTER_DATA_DIR",
    "JUPYTERLAB_SETTINGS_DIR",
    "JUPYTERLAB_WORKSPACES_DIR",
    "IPYTHONDIR",
)


@dataclass
class Watched:
    """A page, and everything about it that a reader would not see but should know."""

    page: object
    problems: list[str] = field(default_factory=list)  # console errors, exceptions
    requests: list[str] = field(default_factory=list)  # URLs


@pytest.fixture(scope="session")
def chromium() -> Iterator[object]:
    """Playwright's own browser or the system's; skips where there is neither."""
    sync_api = pytest.importorskip(
        "playwright.sync_api", reason="no playwright: pip install -e '.[test]'"
    )
    with sync_api.sync_playwright() as playwright:
        own = Path(playwright.chromium.executable_path)
        found = next(filter(None, map(shutil.which, BROWSERS)), str(own) if own.exists() else None)
        if found is None:
            pytest.skip(
                "no browser: apt-get install chromium, or .venv/bin/playwright install chromium"
            )
        as_root = ["--no-sandbox"] if os.geteuid() == 0 else []
        browser = playwright.chromium.launch(executable_path=found, args=[*FLAGS, *as_root])
        yield browser
        browser.close()


@pytest.fixture
def watched(chromium) -> Iterator[Watched]:
    """A fresh page of 1280 × 1000 that notes its console errors and its requests."""
    context = chromium.new_context(viewport={"width": 1280, "height": 1000})
    context.set_default_timeout(PATIENCE * 1000)
    page = context.new_page()
    seen = Watched(page)
    page.on(
        "console",
        lambda message: seen.problems.append(message.text) if message.type == "error" else None,
    )
    page.on("pageerror", lambda error: seen.problems.append(str(error)))
    page.on("request", lambda request: seen.requests.append(request.url))
    yield seen
    context.close()


@dataclass(frozen=True)
class Lab:
    """A running JupyterLab over a copy of the notebooks."""

    url: str
    token: str
    out: Path  # TTS_WORKBOOK_OUT of its kernels

    def api(self, path: str, method: str = "GET"):
        request = urllib.request.Request(f"{self.url}/api/{path}", method=method)
        request.add_header("Authorization", f"token {self.token}")
        with urllib.request.urlopen(request, timeout=10) as answer:
            return json.loads(answer.read() or b"null")

    def address(self, notebook: str) -> str:
        return f"{self.url}/lab/tree/{notebook}?token={self.token}&reset"


@pytest.fixture
def start_lab(tmp_path) -> Iterator[object]:
    """`start_lab(TTS_WORKBOOK_STEPS="500")` -> Lab; smoke profile, one thread. It and its kernels
    end with the test.
    """
    started: list[tuple[Lab, subprocess.Popen]] = []

    def start(**environment: str) -> Lab:
        lab, process = _start(tmp_path, environment)
        started.append((lab, process))
        return lab

    yield start
    for lab, process in started:
        for kernel in lab.api("kernels"):
            lab.api(f"kernels/{kernel['id']}", "DELETE")
        process.terminate()
        process.wait(timeout=60)


def _start(folder: Path, environment: dict[str, str]) -> tuple[Lab, subprocess.Popen]:
    root, out = folder / "lab", folder / "out"
    root.mkdir()
    for notebook in (ROOT / "notebooks").glob("*.ipynb"):
        shutil.copy(notebook, root)
    own = {name: str(folder / name.lower()) for name in OWN_FOLDERS}
    settings = {
        "TTS_WORKBOOK_PROFILE": "smoke",
        "TTS_WORKBOOK_OUT": str(out),
        "TTS_WORKBOOK_THREADS": "1",
        "OMP_NUM_THREADS": "1",
        **own,
        **environment,
    }
    extension = Path(own["JUPYTERLAB_SETTINGS_DIR"], "@jupyterlab", "apputils-extension")
    news = extension / "notification.jupyterlab-settings"
    news.parent.mkdir(parents=True)
    news.write_text('{"fetchNews": "false"}')  # no question in a corner
    token = secrets.token_hex(16)
    for _ in range(START_ATTEMPTS):  # somebody else may take the free port first
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        log = (folder / "jupyterlab.log").open("w")
        process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "jupyterlab",
                "--no-browser",
                "--allow-root",
                "--ServerApp.ip=127.0.0.1",
                f"--ServerApp.port={port}",
                "--ServerApp.port_retries=0",
                f"--IdentityProvider.token={token}",
                f"--ServerApp.root_dir={root}",
                "--LabApp.news_url=None",
                "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate",
            ],
            env={**os.environ, **settings},
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        lab = Lab(f"http://127.0.0.1:{port}", token, out)
        if _answers(lab, process):
            return lab, process
    pytest.fail("JupyterLab did not start:\n" + (folder / "jupyterlab.log").read_text()[-3000:])


def _answers(lab: Lab, process: subprocess.Popen) -> bool:
    """Wait until the server answers; False when it has ended, or never does."""
    deadline = time.monotonic() + PATIENCE
    while process.poll() is None and time.monotonic() < deadline:
        try:
            lab.api("status")
            return True
        except (urllib.error.URLError, OSError):
            time.sleep(0.3)
    process.kill()
    return False
