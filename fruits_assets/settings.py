"""Settings that are needed before Dagster, and how any are read; `definitions.py` adds those of the graph."""

from __future__ import annotations

from typing import Literal, TypeVar

from pydantic import ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict, SettingsError

from fruits_assets.resources.spark_session import THIS_MACHINE, check_master


class LakeSettings(BaseSettings):
    """The environment variable FRUITS_LAKE."""

    model_config = SettingsConfigDict(env_prefix="FRUITS_")

    lake: str = "lake"


class SparkSettings(BaseSettings):
    """The environment variables FRUITS_SPARK and FRUITS_SPARK_MASTER."""

    model_config = SettingsConfigDict(env_prefix="FRUITS_")

    spark: Literal["local", "emr"] = "local"
    spark_master: str = THIS_MACHINE

    @field_validator("spark_master")
    @classmethod
    def _known_kind(cls, value: str) -> str:
        return check_master(value)


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
