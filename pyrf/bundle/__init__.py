"""A model on disk: found, read safely, and saved."""

from typing import TYPE_CHECKING

from pyrf.lazy import importer

if TYPE_CHECKING:
    from pyrf.bundle.bundle import Bundle as Bundle
    from pyrf.bundle.bundle import load_bundle as load_bundle
    from pyrf.bundle.card import Card as Card
    from pyrf.bundle.card import Shown as Shown
    from pyrf.bundle.json_file import BundleError as BundleError
    from pyrf.bundle.save import save_bundle as save_bundle

# Public name -> the module that holds it; imported at first use, so that finding a bundle needs no torch.
_HOMES = {
    "Bundle": "pyrf.bundle.bundle",
    "Card": "pyrf.bundle.card",
    "Shown": "pyrf.bundle.card",
    "load_bundle": "pyrf.bundle.bundle",
    "save_bundle": "pyrf.bundle.save",
    "BundleError": "pyrf.bundle.json_file",
}

__all__ = [*_HOMES]
__getattr__ = importer(__name__, _HOMES)
