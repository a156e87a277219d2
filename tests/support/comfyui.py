"""ComfyUI's interface to nodes, as far as pyrf's use it: workflows are read, and executed node by node.

ComfyUI 0.3.76 itself made the same of these workflows, by hand; see docs/comfyui.md.
"""

from __future__ import annotations

import importlib.util
import inspect
import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

FOLDER = Path(__file__).parents[2] / "integrations" / "comfyui"
Nodes = Mapping[str, type]
Prompt = dict[str, dict[str, Any]]
"""ComfyUI's API format: nodes by their ids, each with `class_type` and `inputs`; a link is [id, slot]."""
WIDGETS = ("STRING", "INT", "FLOAT", "BOOLEAN")


def load_pack(name: str = "pyrf_comfyui") -> ModuleType:
    """The folder as ComfyUI imports what lies in `custom_nodes`."""
    spec = importlib.util.spec_from_file_location(name, FOLDER / "__init__.py")
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def inputs_of(node: Any) -> dict[str, tuple[Any, ...]]:
    """What a node takes, by name, in order."""
    kinds = node.INPUT_TYPES()
    return {**kinds.get("required", {}), **kinds.get("optional", {})}


def as_prompt(workflow: dict[str, Any], nodes: Nodes) -> Prompt:
    """A saved workflow in the API format: widgets take their values in order, links go before them."""
    links = {link[0]: [str(link[1]), link[2]] for link in workflow["links"]}
    prompt: Prompt = {}
    for node in workflow["nodes"]:
        values = iter(node["widgets_values"])
        inputs: dict[str, Any] = {}
        for name, (kind, *rest) in inputs_of(nodes[node["type"]]).items():
            options = rest[0] if rest else {}
            if isinstance(kind, list) or kind in WIDGETS:
                inputs[name] = next(values)
                if options.get("control_after_generate"):
                    assert next(values) in ("fixed", "increment", "decrement", "randomize")
        assert not list(values), f"{node['type']} has values without a widget"
        for given in node["inputs"]:
            if given["link"] is not None:
                inputs[given["name"]] = links[given["link"]]
        prompt[str(node["id"])] = {"class_type": node["type"], "inputs": inputs}
    return prompt


def execute(prompt: Prompt, nodes: Nodes) -> dict[str, tuple[Any, ...]]:
    """What each node returns, by its id. Inputs are checked first, as ComfyUI checks them."""
    for id_, entry in prompt.items():
        _check(id_, prompt, nodes)
        node: Any = nodes[entry["class_type"]]
        if hasattr(node, "VALIDATE_INPUTS"):
            asked = inspect.signature(node.VALIDATE_INPUTS).parameters
            said = node.VALIDATE_INPUTS(**{name: entry["inputs"][name] for name in asked})
            if said is not True:
                raise ValueError(said)
    made: dict[str, tuple[Any, ...]] = {}
    while len(made) < len(prompt):
        for id_, entry in prompt.items():
            links = {name: value for name, value in entry["inputs"].items() if isinstance(value, list)}
            if id_ in made or any(link[0] not in made for link in links.values()):
                continue
            given = entry["inputs"] | {name: made[link[0]][link[1]] for name, link in links.items()}
            node = nodes[entry["class_type"]]
            made[id_] = getattr(node(), node.FUNCTION)(**given)
    return made


def _check(id_: str, prompt: Prompt, nodes: Nodes) -> None:
    entry = prompt[id_]
    kinds: Any = nodes[entry["class_type"]]
    missing = set(kinds.INPUT_TYPES().get("required", {})) - set(entry["inputs"])
    assert not missing, f"{entry['class_type']} lacks {missing}"
    for name, value in entry["inputs"].items():
        kind, *rest = inputs_of(kinds)[name]
        options = rest[0] if rest else {}
        if isinstance(value, list):
            source: Any = nodes[prompt[value[0]]["class_type"]]
            assert source.RETURN_TYPES[value[1]] == kind, f"{name} takes {kind}"
        elif isinstance(kind, list):
            assert value in kind
        else:
            assert isinstance(value, {"STRING": str, "INT": int, "FLOAT": float | int}[kind]), name
            assert options.get("min", value) <= value <= options.get("max", value), name
