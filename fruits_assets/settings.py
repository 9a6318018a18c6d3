"""Settings of whatever reads the lake, and how any are read; `definitions.py` adds those of the graph."""

from __future__ import annotations

from typing import TypeVar

from pydantic import ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict, SettingsError


class LakeSettings(BaseSettings):
    """The environment variable FRUITS_LAKE."""

    model_config = SettingsConfigDict(env_prefix="FRUITS_")

    lake: str = "lake"


class SettingError(ValueError):
    """Names each wrong variable, its value and what it should be."""


AnySettings = TypeVar("AnySettings", bound=BaseSettings)


def from_environment(settings: type[AnySettings]) -> AnySettings:
    """Read settings.

    Raises:
        SettingError: some are wrong.
    """
    prefix = settings.model_config["env_prefix"]
    try:
        return settings()
    except SettingsError as error:
        # It names the field only.
        names = [name for name in settings.model_fields if f'"{name}"' in str(error)]
        variables = ", ".join(f"{prefix}{name}".upper() for name in names)
        raise SettingError(f"{variables} is not JSON. Correct it, or unset it.") from error
    except ValidationError as error:
        faults = [
            f"{prefix}{fault['loc'][0]}".upper()
            + f"={fault['input']}: {fault['msg'].removeprefix('Value error, ')}"
            for fault in error.errors()
        ]
        raise SettingError(f"{'; '.join(faults)}. Correct it, or unset it.") from error
