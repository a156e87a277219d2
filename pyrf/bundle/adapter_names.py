"""Names in the files of adapters: which parameter of the network one changes, and which part of it it is.

Families: Wan's names below `diffusion_model.` (ComfyUI, lightx2v, CausVid, AccVideo), kohya's and musubi's
`lora_unet_...`, those of diffusers and peft, and LongLive's.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Literal, NamedTuple

from pyrf.bundle.names import dit_to_diffusers
from pyrf.bundle.states import WRAPPERS

Slot = Literal["down", "up", "up bias", "alpha", "weight", "bias", "modulation"]
"""A low-rank part with its factor, or a change of a parameter that is stored whole."""

KOHYA = "lora_unet_"
_LEAVES: dict[str, Slot] = {".diff": "weight", ".diff_b": "bias", ".diff_m": "modulation", ".alpha": "alpha"}
_SIDES: dict[str, Slot] = {"A": "down", "down": "down", "B": "up", "up": "up"}
# "...lora_A.weight", "...lora_A.default.weight", "...lora_down", "..._lora.up.weight", "....lora.up",
# "...lora_linear_layer.down.weight"
_LOW_RANK = re.compile(
    r"(?P<module>.+?)(?:[._]lora_(?P<one>A|B|down|up)(?:\.(?!weight$|bias$)(?P<adapter>[^.]+))?"
    r"|[._]lora(?:_linear_layer)?\.(?P<other>down|up))(?:\.(?P<leaf>weight|bias))?"
)
_REFUSED = (
    (
        r"dora_scale|lora_magnitude_vector|\.w_norm$|\.b_norm$",
        "DoRA, which also scales rows of the weights",
    ),
    (r"hada_w[12]|\.hada_t[12]", "LoHa, a product of two adapters"),
    (r"lokr_", "LoKr, a Kronecker product"),
    (r"lora_mid|\.oft_|oft_blocks|\.glora_|(?:^|\.)[ab][12]\.weight$|vera_lambda|ia3_l", "another kind"),
)


class AdapterNameError(ValueError):
    """A name that means no part of an adapter of this network. The message says why."""


class Key(NamedTuple):
    """What a name means.

    Attributes:
        module: of the network, under its own name.
        slot: the part.
        prefix: what stands before the module's name in the file.
    """

    module: str
    slot: Slot
    prefix: str


class ModuleNames:
    """The modules of a network by every name that adapters give them.

    Args:
        parameters: names of the network's parameters.
    """

    def __init__(self, parameters: Iterable[str]) -> None:
        modules = dict.fromkeys(name.rpartition(".")[0] for name in parameters)
        self._dotted = {name: name for name in modules}
        for name in modules:
            theirs = dit_to_diffusers(f"{name}.weight").removesuffix(".weight")
            self._dotted[theirs] = name
            if theirs.endswith(
                ".to_out.0"
            ):  # older diffusers named the adapter of the list, not of its first
                self._dotted[theirs.removesuffix(".0")] = name
        self._flat = {name.replace(".", "_"): module for name, module in self._dotted.items()}

    def meaning(self, key: str) -> Key:
        """What a name in a file means.

        Raises:
            AdapterNameError: when it is another kind of adapter's, or fits no layer.
        """
        for pattern, kind in _REFUSED:
            if re.search(pattern, key):
                raise AdapterNameError(
                    f"{key} belongs to {kind}; plain LoRA is read: save the adapter merged, or as LoRA"
                )
        written, slot = _split(key)
        for wrapper in (*WRAPPERS, "processor."):
            written = written.replace(wrapper, "")
        prefix, module = self._find(written)
        if module is None:
            raise AdapterNameError(f"{key} fits no layer of this model{_hint(key)}")
        return Key(module, slot, prefix)

    def _find(self, written: str) -> tuple[str, str | None]:
        """The prefix of a module's name in a file, and the module."""
        if written.startswith(KOHYA):
            return KOHYA, self._flat.get(written.removeprefix(KOHYA))
        parts = written.split(".")
        for i in range(len(parts)):
            name = ".".join(parts[i:])
            if name in self._dotted:
                return written[: len(written) - len(name)], self._dotted[name]
        return "", None


def _split(key: str) -> tuple[str, Slot]:
    """A name as that of a module, and the part of its adapter."""
    if match := _LOW_RANK.fullmatch(key):
        slot = _SIDES[match["one"] or match["other"]]
        if match["leaf"] == "bias":
            if slot == "down":
                raise AdapterNameError(f"{key}: the first factor of LoRA has no bias")
            slot = "up bias"
        return match["module"], slot
    for leaf, slot in _LEAVES.items():
        if key.endswith(leaf):
            return key.removesuffix(leaf), slot
    raise AdapterNameError(f"{key} is no name of LoRA (as ...lora_A.weight, ...lora_down.weight, ...alpha)")


def _hint(key: str) -> str:
    if re.search(r"k_img|v_img|img_emb|add_[kv]_proj", key):
        return ": the adapter is for an image-to-video model"
    if re.search(r"lora_te|text_encoder", key):
        return ": adapters of text encoders are not read"
    return "; take an adapter that was made for it"
