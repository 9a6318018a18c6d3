"""Which weights the network has."""

from __future__ import annotations

import dagster as dg
from pydantic import Field

from fruits_assets.resources.failures import refused_in_words


class MobileNetWeights(dg.ConfigurableResource):
    """The source of MobileNetV2's weights."""

    source: str = Field(
        description="imagenet (downloaded and cached by Keras), demo (bundled) or a path to a .h5 file."
    )

    @refused_in_words()
    def setup_for_execution(self, context: dg.InitResourceContext) -> None:
        """Refuse weights that are not there before a run does any work."""
        from fruits_assets.mobilenet.weights import check_source

        check_source(self.source)
