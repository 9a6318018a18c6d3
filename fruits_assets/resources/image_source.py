"""Where the photos come from."""

from __future__ import annotations

import dagster as dg
from pydantic import Field


class ImageSource(dg.ConfigurableResource):
    """A folder or s3:// prefix that holds `<label>/<file>`."""

    uri: str = Field(description="Folder or s3:// prefix that holds <label>/<file>.")

    def setup_for_execution(self, context: dg.InitResourceContext) -> None:
        """Refuse a missing or empty source before a run does any work."""
        from fruits_assets.stages.listing import refuse_empty

        refuse_empty(self.uri)

    def fingerprint(self) -> str:
        """Changes when a file is added, removed, renamed or written to; costs one listing."""
        from fruits_assets.stages.listing import listing_fingerprint, sorted_listing

        with sorted_listing(self.uri) as listing:
            return listing_fingerprint(listing)
