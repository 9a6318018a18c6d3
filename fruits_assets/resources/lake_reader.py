"""What a lake has published, for those who only read it: needs no Dagster."""

from __future__ import annotations

from dataclasses import dataclass

from upath import UPath

from fruits_assets.resources.files import LakeError, is_local
from fruits_assets.resources.published import Version, current_version, version_at


@dataclass
class LakeReader:
    """The folder or s3:// prefix `root`, and the versions of assets in it."""

    root: str

    @property
    def path(self) -> UPath:
        """The root, whatever the current folder will be."""
        path = UPath(self.root)
        return UPath(path.path).expanduser().absolute() if is_local(path) else path

    def place(self, asset: str) -> UPath:
        """The folder of an asset, where its stable files are."""
        return self.path / asset

    def find(self, asset: str) -> Version | None:
        """The published version, or None."""
        return current_version(self.place(asset))

    def current(self, asset: str) -> Version:
        """The published version.

        Raises:
            LakeError: nothing is published.
        """
        version = self.find(asset)
        if version is None:
            raise LakeError(
                f"The lake '{self.root}' has no published version of {asset}. Materialize {asset} first."
            )
        return version

    def input_of(self, version: Version, asset: str, otherwise: str) -> Version:
        """The version of `asset` that another one was made of.

        Raises:
            LakeError: it is no longer kept; says what to do `otherwise`.
        """
        number = version.inputs[asset]
        used = version_at(self.place(asset), number)
        if used is None or not used.is_intact() or not version.was_made_of(used):
            raise LakeError(f"The lake '{self.root}' no longer has version {number} of {asset}. {otherwise}")
        return used
