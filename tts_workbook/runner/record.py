"""run.json: what a run is doing or did, written at the start, after every notebook and at the end.

It never says more than is true. `status` is running, complete, failed or interrupted; a killed
runner leaves "running" with its process id.
"""

from __future__ import annotations

import os
import socket
import sys
import time
from typing import Any

from tts_core import atomic_files, environment
from tts_workbook.runner.parameters import Parameters, repository_root
from tts_workbook.runner.run_folder import RunFolder, now


class Record:
    """The content of run.json and its saving."""

    def __init__(
        self,
        folder: RunFolder,
        parameters: Parameters,
        given: dict[str, Any],
        selection: list[str],
        resume: bool,
        data: dict[str, Any],
        package: str,
        subject: dict[str, Any],
    ) -> None:
        self._folder = folder
        self._clock = time.monotonic()
        self.content: dict[str, Any] = {
            "status": "running",
            "pid": os.getpid(),
            "host": socket.gethostname(),
            "started": now(),
            "finished": None,
            "seconds": None,
            "command": sys.argv,
            "selection": selection,
            "resume": resume,
            "parameters": parameters.to_dict(),
            "given": sorted(given),
            "config_hash": parameters.digest,
            "data": {"path": str(parameters.data), **data},
            "package_hash": package,
            "subject": subject,
            "git_commit": environment.git_commit(repository_root()),
            **environment.describe_environment(),
            "notebooks": {},
            "failure": None,
            "warnings": [],
        }

    def save(self) -> None:
        """Atomically. On a full disk the reserve is given up for it; raises OSError when even that
        does not help.
        """
        target = self._folder.path / "run.json"
        try:
            atomic_files.write_json(target, self.content)
        except OSError:
            self._folder.free_reserve()
            atomic_files.write_json(target, self.content)

    def notebook(self, number: str, name: str, **facts: Any) -> None:
        """Note facts about one notebook; those of the same name are replaced."""
        self.content["notebooks"].setdefault(number, {}).update(name=name, **facts)

    def finish(self, status: str | None = None) -> None:
        """End the record: `status` if given, and no notebook left waiting or running."""
        if status is not None:
            self.content["status"] = status
        for entry in self.content["notebooks"].values():
            if entry["status"] == "waiting":
                entry["status"] = "not run"
            elif entry["status"] == "running":
                entry["status"] = self.content["status"]
        self.content["finished"] = now()
        self.content["seconds"] = round(time.monotonic() - self._clock, 1)
        self.save()
