"""A story: prompts over time in a YAML file, checked with line numbers before anything is loaded."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import yaml
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from pyrf.config import MAX_SEED
from pyrf.files import expanded
from pyrf.moments import format_time, parse_time
from pyrf.printing import counted
from pyrf.streaming.change import Change, check_strengths
from pyrf.streaming.mix import ClipPrompt, as_mix, shown
from pyrf.streaming.timeline import Switch

MAX_BYTES = 2**18
"""Of a story's file."""
MAX_ENTRIES = 1000
"""Of a story."""
MAX_DEPTH = 5
"""Lists and mappings within each other; a story needs four."""


class ScriptError(ValueError):
    """A story that cannot be read; the message begins with its name and the line."""


@dataclass(frozen=True)
class Script:
    """A story, from `load`: `pipe.stream(script.prompt, script.seed, timeline=script.timeline)`.

    Attributes:
        prompt: of the beginning.
        seed: of the noise; 0 where the file has none.
        seconds: length of the video, if the file says so.
        adapters: their strengths at the beginning.
        switches: the later changes, in their order, each with its line.
    """

    prompt: ClipPrompt
    seed: int = 0
    seconds: float | None = None
    adapters: Mapping[str, float] = field(default_factory=dict)
    switches: tuple[Switch, ...] = ()

    def __repr__(self) -> str:
        return f"<Script of {shown(self.prompt)}: {counted(len(self.switches), 'later change')}>"

    @property
    def timeline(self) -> dict[str, Change]:
        """The later changes by their times."""
        return {format_time(switch.start): switch.change for switch in self.all_switches}

    @property
    def all_switches(self) -> tuple[Switch, ...]:
        """Those of the beginning included, where it sets strengths of adapters."""
        if not self.adapters:
            return self.switches
        return (Switch("the story's first entry", 0.0, Change(adapters=self.adapters)), *self.switches)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Read a story.

        Args:
            path: of a YAML file with a list `story`, and perhaps `seed` and `seconds`. An entry has `at`
                (seconds, or [hh:]mm:ss; the first has none), `prompt` (a text, or weights by text), and
                perhaps `over`, `recache` and `adapters`.

        Raises:
            ScriptError: for anything else, naming the line.
            OSError: when it cannot be read.
        """
        path = Path(expanded(path))
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
        if len(content) > MAX_BYTES:
            raise ScriptError(f"{path}: a story may have {MAX_BYTES:,} bytes; make several videos of it")
        try:
            return cls.parse(content.decode("utf-8-sig"), str(path))
        except UnicodeDecodeError as error:
            line = content[: error.start].count(b"\n") + 1
            raise ScriptError(f"{path}, line {line}: not UTF-8; save the file as text in UTF-8") from None

    @classmethod
    def parse(cls, text: str, name: str = "story") -> Self:
        """The story of a text; `name` is its name in errors. See `load`."""
        return cls(**_Reader(name).story(_compose(text, name)))


def _compose(text: str, name: str) -> Node:
    """The nodes of a text, once it is known to be shallow and without aliases."""
    depth = 0
    try:
        for event in yaml.parse(text, Loader=yaml.SafeLoader):
            where = f"{name}, line {event.start_mark.line + 1 if event.start_mark else 1}"
            if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None) is not None:
                raise ScriptError(f"{where}: a story has no anchors and aliases (& and *); write it out")
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > MAX_DEPTH:
                raise ScriptError(f"{where}: lists within lists deeper than {MAX_DEPTH}; a story needs four")
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise ScriptError(f"{name}, line {mark.line + 1 if mark else 1}: {error.problem}") from None
    except yaml.YAMLError as error:
        raise ScriptError(f"{name}: {' '.join(str(error).split())}") from None
    if node is None:
        raise ScriptError(f"{name}: it is empty; a story has a list 'story' of prompts")
    return node


class _Reader:
    """Reads the nodes of a story.

    Args:
        name: of the story, for errors.
    """

    def __init__(self, name: str) -> None:
        self._name = name

    def story(self, node: Node) -> dict[str, Any]:
        """The arguments of `Script`."""
        values = dict(self._fields(node, "a story", ("seed", "seconds", "story")))
        if "story" not in values:
            raise self._error(node, "a story needs a list 'story' of prompts")
        entries = values["story"]
        if not isinstance(entries, SequenceNode) or not entries.value:
            raise self._error(entries, "story must be a list of prompts, and not empty")
        if len(entries.value) > MAX_ENTRIES:
            extra = entries.value[MAX_ENTRIES]
            raise self._error(extra, f"a story may have {MAX_ENTRIES} entries, got {len(entries.value)}")
        first = dict(self._entry(entries.value[0]))
        story = self._beginning(entries.value[0], first)
        if "seed" in values:
            story["seed"] = self._seed(values["seed"])
        if "seconds" in values:
            story["seconds"] = self._time(values["seconds"], "seconds")
            if not story["seconds"]:
                raise self._error(values["seconds"], "seconds must be above 0")
        story["switches"] = tuple(self._later(entries.value[1:]))
        return story

    def _beginning(self, node: Node, first: dict[str, Any]) -> dict[str, Any]:
        if first.pop("at", 0.0):
            raise self._error(node, "the first entry begins the video; it has no 'at', or 0")
        if first.get("prompt") is None:
            raise self._error(node, "the first entry needs a prompt")
        for name in ("over", "recache"):
            if first.pop(name, False):
                raise self._error(node, f"the first entry has nothing to change from; leave '{name}' out")
        return first

    def _later(self, nodes: list[Node]) -> Iterator[Switch]:
        last = 0.0
        for node in nodes:
            entry = dict(self._entry(node))
            at = entry.pop("at", None)
            if at is None:
                raise self._error(node, "an entry needs 'at', the time of its change; the first has none")
            if at <= last:
                raise self._error(
                    node, f"the entry at {format_time(at)} does not come after the one at {format_time(last)}"
                )
            last = at
            with self._named(node):
                change = Change(**entry)
            yield Switch(f"{self._name}, line {_line(node)} (at {format_time(at)})", at, change)

    def _entry(self, node: Node) -> Iterator[tuple[str, Any]]:
        for name, value in self._fields(node, "an entry", ("at", "prompt", "over", "recache", "adapters")):
            if name in ("at", "over"):
                yield name, self._time(value, name)
            elif name == "prompt":
                yield name, self._prompt(value)
            elif name == "recache":
                yield name, self._flag(value)
            else:
                strengths = dict(self._numbers(value, "adapters"))
                with self._named(value):
                    check_strengths(strengths)
                yield name, strengths

    def _fields(self, node: Node, what: str, known: tuple[str, ...] | None) -> Iterator[tuple[str, Node]]:
        """The names and values of a mapping; each name once, and one of those that are known."""
        if not isinstance(node, MappingNode):
            names = "a mapping of texts" if known is None else f"a mapping with {', '.join(known)}"
            raise self._error(node, f"{what} must be {names}")
        seen = set()
        for key, value in node.value:
            name = self._text(key, f"a name in {what}")
            if name in seen:
                raise self._error(key, f"{name!r} stands twice in {what}")
            if known is not None and name not in known:
                close = difflib.get_close_matches(name, known, n=1)
                hint = f"did you mean {close[0]!r}?" if close else f"known are {', '.join(known)}"
                raise self._error(key, f"unknown name {name!r:.80} in {what}; {hint}")
            seen.add(name)
            yield name, value

    def _text(self, node: Node, what: str) -> str:
        if not isinstance(node, ScalarNode) or node.tag != "tag:yaml.org,2002:str":
            given = f", got {node.value!r:.80}; put it in quotes" if isinstance(node, ScalarNode) else ""
            raise self._error(node, f"{what} must be a text{given}")
        return str(node.value)

    def _prompt(self, node: Node) -> ClipPrompt:
        if isinstance(node, MappingNode):
            given: Any = dict(self._numbers(node, "a weighted prompt"))
        else:
            given = self._text(node, "a prompt")
        for text in [given] if isinstance(given, str) else given:
            if not text.strip():
                raise self._error(node, "the prompt is empty; say what to show in words")
        with self._named(node):
            return as_mix(given)

    def _numbers(self, node: Node, what: str) -> Iterator[tuple[str, float]]:
        for name, value in self._fields(node, what, None):
            try:
                yield name, float(self._scalar(value, f"the number of {name!r:.80}"))
            except ValueError:
                raise self._error(value, f"{name!r:.80} needs a number, got {value.value!r:.80}") from None

    def _time(self, node: Node, name: str) -> float:
        with self._named(node, f"{name}: "):
            return parse_time(self._scalar(node, name))

    def _flag(self, node: Node) -> bool:
        text = self._scalar(node, "recache").lower()
        if text not in ("true", "false"):
            raise self._error(node, f"recache must be true or false, got {text!r:.80}")
        return text == "true"

    def _seed(self, node: Node) -> int:
        text = self._scalar(node, "seed")
        if not (text.isascii() and text.isdecimal() and len(text) <= 20 and int(text) <= MAX_SEED):
            raise self._error(node, f"seed must be a whole number of 0..{MAX_SEED}, got {text!r:.80}")
        return int(text)

    def _scalar(self, node: Node, name: str) -> str:
        """As it stands in the file: YAML itself would read 1:30 as 90, and 0:08 as a text."""
        if not isinstance(node, ScalarNode):
            raise self._error(node, f"{name} must be a single value")
        return str(node.value)

    @contextmanager
    def _named(self, node: Node, before: str = "") -> Iterator[None]:
        """Around checks that know nothing of lines."""
        try:
            yield
        except ScriptError:
            raise
        except ValueError as error:
            raise self._error(node, f"{before}{error}") from None

    def _error(self, node: Node, message: str) -> ScriptError:
        return ScriptError(f"{self._name}, line {_line(node)}: {message}")


def _line(node: Node) -> int:
    return int(node.start_mark.line) + 1
