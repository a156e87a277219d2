"""What `mkdocs build` makes itself: commands, settings of the server, and what stands outside of docs/."""

from __future__ import annotations

import posixpath
import re
import subprocess
import sys
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files, InclusionLevel
from mkdocs.structure.nav import Page

from pyrf.serve.settings import ServeSettings

ROOT = Path(__file__).parent.parent
OUTSIDE = re.compile(r"\]\(\.\./(?=\w)([\w./-]+)")
BESIDE = re.compile(r"\]\((?!docs/|https?:|#)([\w./-]+)")
INTO_DOCS = re.compile(r"\]\(docs/")
"""Links of a page at the top of the repository."""
COMMANDS, SETTINGS = "<!-- commands -->", "<!-- settings -->"


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """The site takes along what its pages link to outside of docs/, in the folder `source/`."""
    pages = [ROOT / "docs" / file.src_uri for file in files.documentation_pages() if "/" not in file.src_uri]
    wanted = sorted({path for page in pages for path in OUTSIDE.findall(page.read_text())})
    for path in wanted:  # it grows
        text = (ROOT / path).read_text()
        if path.endswith(".md"):
            beside = (posixpath.join(posixpath.dirname(path), link) for link in BESIDE.findall(text))
            wanted += [link for link in beside if link not in wanted]
            text = INTO_DOCS.sub("](../", text)
        inclusion = InclusionLevel.NOT_IN_NAV
        files.append(File.generated(config, f"source/{path}", content=text, inclusion=inclusion))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    if "/" not in page.file.src_uri:
        markdown = OUTSIDE.sub(r"](source/\1", markdown)
    markdown = with_wide_lists(markdown)
    if page.file.src_uri == "reference/protocol.md":
        markdown = demoted(markdown)
    if COMMANDS in markdown:
        markdown = markdown.replace(COMMANDS, commands())
    return markdown.replace(SETTINGS, settings_table())


def with_wide_lists(markdown: str) -> str:
    """What belongs to an entry of a list, indented by four: GitHub takes it at two or three, MkDocs not."""
    lines: list[str] = []
    depth, loose = 0, False
    for line in markdown.splitlines():
        if entry := re.match(r"(?:[-*]|\d+\.) ", line):
            if depth and loose:
                lines.append("")
            depth = len(entry[0])
        elif not line.strip():
            loose = True
        elif not depth or not line.startswith(" " * depth):
            depth, loose = 0, False
        else:
            line = " " * (4 - depth) + line
        lines.append(line)
    return "\n".join(lines)


def demoted(markdown: str) -> str:
    """What was made of openapi.json, as a part of its page: an entry per request and per schema."""
    before, made, after = re.split(r"^(?=# pyrf |## Messages )", markdown, flags=re.MULTILINE)
    requests, schemas, rest = made.partition("## Schemas\n")
    requests = re.sub(r"^##? .*$", "", requests, flags=re.MULTILINE)  # its title, and the names of groups
    requests = re.sub(r"^###(?= Response )", "#####", requests, flags=re.MULTILINE)
    rest = re.sub(r"^#(?=##)", "##", rest, flags=re.MULTILINE)
    rest = re.sub(r"^##(?= )", "###", rest, flags=re.MULTILINE)
    made = f"{requests}#{schemas}{rest}".replace("JWT Bearer token", "the token")  # it is none
    return before + made + after


def commands() -> str:
    """All commands, as `typer` writes them down; its first heading is the page's own already."""
    call = [sys.executable, "-m", "typer", "pyrf.commands.app", "utils", "docs", "--name", "pyrf"]
    text = subprocess.run(call, capture_output=True, text=True, check=True, cwd=ROOT).stdout
    return text.partition("\n")[2]


def settings_table() -> str:
    rows = [
        f"| `{one.name}` | {_flag(one.metadata['flag'])} | `{one.default!r}` | {one.metadata['help']} |"
        for one in fields(ServeSettings)
        if one.default is not MISSING
    ]
    return "\n".join(["| setting | flag | default | meaning |", "|---|---|---|---|", *rows])


def _flag(flag: Any) -> str:
    """The flag of a setting, the variable that stands in for it, and its unit."""
    if flag is None:
        return "none"
    unit = " (minutes)" if flag.unit == 60 else ""
    return " or ".join(f"`{name}`" for name in (flag.name, flag.envvar) if name) + unit
