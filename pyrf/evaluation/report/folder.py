"""A report on disk: what is measured is kept part by part, so that nothing is measured twice."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path

from pyrf.bundle.json_file import JsonFile
from pyrf.evaluation.report.examined import Part
from pyrf.evaluation.report.measures import Measure
from pyrf.evaluation.report.table import table
from pyrf.files import whole_file
from pyrf.video.strips import contact_sheet


class ReportFolder:
    """`report.json`, `report.md`, and a contact sheet for each part.

    Args:
        path: the folder; it is made when the first part is kept.
        about: what is examined; a report of anything else is not continued.
        order: of the parts.

    Raises:
        ValueError: when the folder has a report that is damaged, or about something else.
    """

    def __init__(self, path: Path, about: Mapping[str, str], order: Iterable[str]) -> None:
        self.path, self._about, self._order = path, dict(about), tuple(order)
        self._parts: dict[str, tuple[int, list[Measure]]] = {}
        if path.exists() and not path.is_dir():
            raise ValueError(f"{path} is a file; name a folder for the report")
        file = path / "report.json"
        if not file.exists():
            return
        found = JsonFile(file).values
        for name, value in self._about.items():
            if found.get(name) != value:
                raise ValueError(
                    f"{file} is about another {name}: {found.get(name)}, now it is {value}; "
                    "name another folder, or remove this one"
                )
        try:
            for name, part in found["parts"].items():
                measures = [Measure(**measure) for measure in part["measures"]]
                self._parts[name] = part["prompts"], measures
        except (AttributeError, KeyError, TypeError) as error:
            raise ValueError(f"{file}: damaged ({error!r}); remove it, and all is measured again") from error

    def has(self, part: str, count: int) -> bool:
        """Whether a part was measured on so many prompts."""
        return part in self._parts and self._parts[part][0] == count

    @property
    def measures(self) -> dict[str, list[Measure]]:
        """Part -> its measures, in order."""
        return {name: self._parts[name][1] for name in self._order if name in self._parts}

    def keep(self, name: str, count: int, part: Part) -> None:
        """Write a part that was measured on `count` prompts; one that was there before is replaced.

        Raises:
            OSError: when a file cannot be written.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        columns = min(len(clip) for _, clip in part.rows)
        contact_sheet(part.rows, self.path / f"{name}.png", columns)
        self._parts[name] = count, part.measures
        parts = {
            done: {"prompts": self._parts[done][0], "measures": [asdict(m) for m in measures]}
            for done, measures in self.measures.items()
        }
        told = {**self._about, "parts": parts}
        self._write("report.md", self._page())
        self._write("report.json", json.dumps(told, indent=2, allow_nan=False))

    def _page(self) -> str:
        about = "\n".join(f"- {name}: {value}" for name, value in self._about.items())
        return f"# How well a model shows its world\n\n{about}\n\n{table(self.measures)}"

    def _write(self, name: str, text: str) -> None:
        with whole_file(self.path / name) as temporary:
            temporary.write_text(text + "\n", encoding="utf-8")
