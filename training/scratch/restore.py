"""From a bundle back to the stages' files, so that a training outlives the machine that ran it."""

from __future__ import annotations

from pyrf.bundle.bundle import Bundle
from pyrf.models.codecs.taehv import TAEHVCodec
from pyrf.training.scratch.codec_files import CONFIG, save_codec
from pyrf.training.scratch.networks import NETWORK, NetworkSettings, ScratchTextToVideo
from pyrf.training.scratch.run import CODEC, Run


def restore(run: Run, bundle: Bundle, network: str) -> None:
    """Leave a bundle's network and codec in a run's folder, as if stages `network` and `CODEC` had made them.

    Encoded scenes, paths and the optimizers' states are not in a bundle: they are made anew.

    Raises:
        ValueError: when the run has these stages, or the bundle was not made for the run's world.
    """
    for stage, file in ((network, NETWORK), (CODEC, CONFIG)):
        if (run.folder / stage / file).exists():
            raise ValueError(f"{run.folder / stage} holds this stage; name another --out, or remove it")
    if bundle.card.sizes != ((run.world.height, run.world.width),):
        raise ValueError(
            f"{bundle.path} is a model of another world than {run.world.name}; "
            "name a bundle that this recipe made"
        )
    decoder = bundle.codec()
    if not isinstance(decoder, TAEHVCodec):
        raise ValueError(f"{bundle.path} has another codec than TAEHV; name a bundle that this recipe made")
    transformer, text = bundle.transformer(), bundle.text_encoder()
    settings = NetworkSettings.model_validate(
        {name: getattr(bundle.model_config, name) for name in NetworkSettings.model_fields}
    )
    whole = ScratchTextToVideo(settings, run.world.vocabulary)
    if whole.text.tokenizer.get_vocab() != text.tokenizer.get_vocab():
        raise ValueError(
            f"{bundle.path} knows other words than {run.world.name}; name a bundle that this recipe made"
        )
    whole.dit.load_state_dict(transformer.state_dict())
    whole.text_network.load_state_dict(text.network.state_dict())
    (run.folder / network).mkdir(parents=True, exist_ok=True)
    whole.save(run.folder / network)
    (run.folder / CODEC).mkdir(parents=True, exist_ok=True)
    save_codec(decoder.network.float(), run.folder / CODEC)
