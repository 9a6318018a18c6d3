"""Settings of whatever reads the lake, and how any are read; `definitions.py` adds those of the graph."""

from __future__ import annotations

from typing import TypeVar

from pydantic import ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict


class LakeSettings(BaseSettings):
    """The environment variable FRUITS_LAKE."""

    model_config = SettingsConfigDict(env_prefix="FRUITS_")

    lake: str = "lake"


AnySettings = TypeVar("AnySettings", bound=BaseSettings)


def from_environment(settings: type[AnySettings]) -> AnySettings:
    """Read settings.

    Raises:
        ValueError: names each wrong variable, its value and what it should be.
    """
    try:
        return settings()
    except ValidationError as error:
        prefix = settings.model_config["env_prefix"]
        faults = [
            f"{prefix}{fault['loc'][0]}".upper() + f"={fault['input']}: {fault['msg']}"
            for fault in error.errors()
        ]
        raise ValueError("; ".join(faults)) from error
