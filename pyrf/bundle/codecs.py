"""Codecs on disk, by family: a new codec is a file in `pyrf.models.codecs` and a family here."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from torch import Tensor

from pyrf.bundle.json_file import BundleError, JsonFile, naming
from pyrf.bundle.names import vae22_to_diffusers, vae_to_diffusers
from pyrf.bundle.states import read_part, renamed
from pyrf.bundle.weights import Placement, load_weights, unfilled
from pyrf.models.codecs.codec import Codec

if TYPE_CHECKING:
    from pyrf.models.codecs.wan_vae import WanVAE


class CodecSource(NamedTuple):
    """What a codec is loaded from: its config with the file for messages, and its weights with theirs."""

    config_path: Path
    config: dict[str, Any]
    weights_path: Path
    weights: dict[str, Tensor]


class CodecFamily(Protocol):
    """A kind of codec.

    Attributes:
        class_name, library: what `vae/config.json` and `model_index.json` call it.
    """

    class_name: str
    library: str

    def fits(self, config: Mapping[str, Any]) -> bool:
        """Whether a config of the class is of this family; several families may share a class."""
        ...

    def load(self, source: CodecSource, placement: Placement, fps: float) -> Codec:
        """Load a codec. The placement's dtype is that of decoding; encoding stays in float32.

        Raises:
            BundleError: when the config is not of the family.
            CheckpointError: when the weights are not the network's.
        """
        ...

    def content(self, codec: Codec) -> tuple[dict[str, Any], dict[str, Tensor]] | None:
        """config.json and weights of a codec, or None when it is of another family."""
        ...


class WanCodecFamily(CodecFamily, Protocol):
    """A kind of codec that comes with Wan's own releases, in `wan_file`."""

    wan_file: str

    def from_wan(self, tensors: dict[str, Tensor], path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """What `path`, a `wan_file`, holds as a config and weights under diffusers' names."""
        ...


class TaehvFamily:
    """Tiny codecs, `pyrf.models.codecs.taehv`."""

    class_name = "TAEHV"
    library = "pyrf"

    def fits(self, config: Mapping[str, Any]) -> bool:
        return True

    def load(self, source: CodecSource, placement: Placement, fps: float) -> Codec:
        from pyrf.models.codecs.taehv import TAEHV, TAEHVCodec, TAEHVConfig

        with naming(source.config_path):
            config = TAEHVConfig.from_dict(source.config)
        with unfilled():
            network = TAEHV(config)
        load_weights(network, source.weights, source.weights_path, device=placement.device)
        network.decoder.to(placement.dtype)
        return TAEHVCodec(network, fps=fps)

    def content(self, codec: Codec) -> tuple[dict[str, Any], dict[str, Tensor]] | None:
        from pyrf.models.codecs.taehv import TAEHVCodec

        if not isinstance(codec, TAEHVCodec):
            return None
        return codec.network.config.to_dict(), codec.network.state_dict()


class Wan21Family:
    """The VAE of Wan2.1, `pyrf.models.codecs.wan_vae`."""

    class_name = "AutoencoderKLWan"
    library = "diffusers"
    wan_file = "Wan2.1_VAE.pth"

    def fits(self, config: Mapping[str, Any]) -> bool:
        return config.get("patch_size") is None and not config.get("is_residual")  # those are Wan2.2's

    def load(self, source: CodecSource, placement: Placement, fps: float) -> Codec:
        from pyrf.models.codecs.wan_vae import build_network

        with unfilled(), naming(source.config_path):
            network = build_network(source.config)
        # The encoder's weights must not pass through a smaller dtype.
        load_weights(network, source.weights, source.weights_path, device=placement.device)
        return self._codec()(network, decoder_dtype=placement.dtype, fps=fps, for_gpu=placement.is_for_gpu)

    def _codec(self) -> type[WanVAE]:
        from pyrf.models.codecs.wan_vae import WanVAE

        return WanVAE

    def content(self, codec: Codec) -> tuple[dict[str, Any], dict[str, Tensor]] | None:
        if type(codec) is not self._codec():
            return None
        values = {name: value for name, value in codec.network.config.items() if not name.startswith("_")}
        return {"_class_name": self.class_name, **values}, codec.network.state_dict()

    def from_wan(self, tensors: dict[str, Tensor], path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
        tensors = renamed(tensors, vae_to_diffusers, path)
        config = {}
        for name, key in (("base_dim", "encoder.conv_in.weight"), ("z_dim", "post_quant_conv.weight")):
            if key in tensors:
                config[name] = tensors[key].shape[0]
        return config, tensors


class Wan22Family(Wan21Family):
    """The VAE of Wan2.2, `pyrf.models.codecs.wan22_vae`."""

    wan_file = "Wan2.2_VAE.pth"

    def fits(self, config: Mapping[str, Any]) -> bool:
        return not super().fits(config)

    def load(self, source: CodecSource, placement: Placement, fps: float) -> Codec:
        from pyrf.models.codecs.wan22_vae import CONFIG

        patch, residual = source.config.get("patch_size"), source.config.get("is_residual")
        if patch != CONFIG["patch_size"] or residual is not True:
            raise BundleError(
                f"{source.config_path}: a VAE of Wan2.2 has patch_size 2 and is_residual true, found "
                f"{patch!r} and {residual!r}"
            )
        return super().load(source, placement, fps)

    def _codec(self) -> type[WanVAE]:
        from pyrf.models.codecs.wan22_vae import Wan22VAE

        return Wan22VAE

    def from_wan(self, tensors: dict[str, Tensor], path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
        from pyrf.models.codecs.wan22_vae import CONFIG

        tensors = renamed(tensors, vae22_to_diffusers, path)
        config = dict(CONFIG)
        for name, key in (
            ("base_dim", "encoder.conv_in.weight"),
            ("decoder_base_dim", "decoder.norm_out.gamma"),
        ):
            if key in tensors:
                config[name] = tensors[key].shape[0]
        return config, tensors


WAN_FAMILIES: tuple[WanCodecFamily, ...] = (Wan21Family(), Wan22Family())
FAMILIES: tuple[CodecFamily, ...] = (TaehvFamily(), *WAN_FAMILIES)


def family_of(file: JsonFile) -> CodecFamily:
    """The family that a `vae/config.json` is of.

    Raises:
        BundleError: when pyrf has none.
    """
    kind = file.values.get("_class_name")
    known = [family for family in FAMILIES if family.class_name == kind]
    if not known:
        names = " or ".join(sorted({family.class_name for family in FAMILIES}))
        raise BundleError(f"{file.path}: _class_name must be {names}, found {kind!r}")
    return next(family for family in known if family.fits(file.values))


def wan_family(release: Path) -> WanCodecFamily:
    """The family whose file a release of Wan has; where it has none, the first, for a message to name."""
    return next((f for f in WAN_FAMILIES if (release / f.wan_file).is_file()), WAN_FAMILIES[0])


TINY_CODECS = ("taew2_1.safetensors", "taew2_1.pth")
"""Files of the tiny codec of Wan2.1's latents, under the names that they are published by."""


def tiny_codec_file(folder: Path) -> Path | None:
    """The tiny codec that lies in a bundle's folder beside its own codec; None where there is none."""
    return next((folder / name for name in TINY_CODECS if (folder / name).is_file()), None)


def load_tiny_codec(file: Path, placement: Placement, fps: float) -> Codec:
    """Load one of `TINY_CODECS`.

    Raises:
        CheckpointError: when it is damaged, or another network.
    """
    from pyrf.models.codecs.taehv import TAEHVConfig

    source = CodecSource(file, TAEHVConfig().to_dict(), file, read_part(file, "codec"))
    return TaehvFamily().load(source, placement, fps)


def codec_content(codec: Codec) -> tuple[CodecFamily, dict[str, Any], dict[str, Tensor]]:
    """Family, config.json and weights of a codec.

    Raises:
        BundleError: when no family takes it.
    """
    for family in FAMILIES:
        content = family.content(codec)
        if content is not None:
            return family, *content
    raise BundleError(
        f"cannot save a {type(codec).__name__}; a bundle's codec is TAEHVCodec, WanVAE or Wan22VAE"
    )
