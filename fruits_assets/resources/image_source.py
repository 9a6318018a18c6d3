"""Where the photos come from."""

from __future__ import annotations

import dagster as dg
from pydantic import Field

from fruits_assets.resources.failures import refused_in_words


class ImageSource(dg.ConfigurableResource):
    """A folder or s3:// prefix that holds `<label>/<file>`."""

    uri: str = Field(description="Folder or s3:// prefix that holds <label>/<file>.")
    inventory: str = Field(
        default="",
        description="The manifest.json of an S3 Inventory report, read instead of listing the prefix.",
    )

    @refused_in_words()
    def setup_for_execution(self, context: dg.InitResourceContext) -> None:
        """Refuse a missing or empty source, or a report on another one, before a run does any work."""
        from fruits_assets.stages.inventory import read_manifest
        from fruits_assets.stages.listing import refuse_empty

        if self.inventory:
            read_manifest(self.inventory, self.uri)  # a folder of S3 is listed whole to look for an image
        else:
            refuse_empty(self.uri)

    def fingerprint(self) -> str:
        """Changes when a file is added, removed, renamed or written to; costs one listing (or report)."""
        from fruits_assets.stages.listing import listing_of

        with listing_of(self.uri, self.inventory) as listing:
            return listing.fingerprint()
