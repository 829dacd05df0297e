"""What a person does in JupyterLab: open a notebook, run all of it, look at a picture, wait for a
result.
"""

import hashlib
import json
import time
from pathlib import Path
from urllib.error import HTTPError

from tests.browser.conftest import PATIENCE, Lab, Watched

# JupyterLab marks a cell's traceback so, and warnings too
ERROR = "[data-mime-type='application/vnd.jupyter.stderr']"
PICTURE_BYTES = """async image => {
    const bytes = new Uint8Array(await (await fetch(image.src)).arrayBuffer());
    return [image.naturalWidth, Array.from(bytes)];
}"""


def open_and_run_all(lab: Lab, watched: Watched, notebook: str) -> None:
    page = watched.page
    page.goto(lab.address(notebook))
    page.locator(".jp-Notebook .jp-Cell").first.wait_for()
    wait_until(lambda: has_idle_kernel(lab), "an idle kernel")
    page.locator(".jp-Toolbar-kernelName").get_by_text("Python 3 (ipykernel)").wait_for()
    page.get_by_text("Python 3 (ipykernel) | Idle").wait_for()
    page.locator(".lm-MenuBar-itemLabel", has_text="Run").first.click()
    page.locator(".lm-Menu-itemLabel").get_by_text("Run All Cells", exact=True).click()


def has_idle_kernel(lab: Lab) -> bool:
    """Whether a kernel waits for work. The server answers 500 while it knows a kernel but not yet
    its state.
    """
    try:
        return any(kernel["execution_state"] == "idle" for kernel in lab.api("kernels"))
    except HTTPError as error:
        if error.code != 500:
            raise
        return False


def cell_with(watched: Watched, text: str):
    """The code cell whose source holds `text`."""
    return watched.page.locator(
        ".jp-CodeCell", has=watched.page.locator(".jp-InputArea", has_text=text)
    ).first


def picture_in(cell) -> str:
    """Hash of the picture that the cell's widget shows; it is loaded and has a width."""
    image = cell.locator("img.widget-image").first
    image.scroll_into_view_if_needed()
    image.evaluate("image => image.decode()")
    width, content = image.evaluate(PICTURE_BYTES)
    assert width > 400
    return hashlib.sha256(bytes(content)).hexdigest()


def wait_until(condition, what: str):
    """The first true value of `condition()`."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        found = condition()
        if found:
            return found
        time.sleep(0.2)
    raise AssertionError(f"waited {PATIENCE} s in vain for {what}")


def verdict_of(lab: Lab, watched: Watched, number: str) -> dict:
    """The notebook's verdict, once its last cell has written it; fails at once where a cell
    raised.
    """
    path = lab.out / "verdicts" / f"{number}.json"
    error = watched.page.locator(ERROR, has_text="Traceback")

    def finished() -> Path | None:
        if error.count():
            raise AssertionError("a cell failed: " + error.first.text_content()[-2000:])
        return path if path.exists() else None

    return json.loads(wait_until(finished, path.name).read_text())
