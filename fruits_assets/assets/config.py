"""Asset configuration that is checked as a whole when a run is launched."""

from __future__ import annotations

from typing import Any, TypeVar

import dagster as dg
from dagster._config.errors import PostProcessingError
from pydantic import ValidationError

AssetConfig = TypeVar("AssetConfig", bound=dg.Config)


class CheckedConfig(dg.Shape):
    """The fields of a `Config` class as a config schema that runs the class' own validators.

    Dagster by itself runs them when the step starts: for the last assets of the graph that is after all
    the expensive ones have finished.
    """

    def __new__(cls, model: type[dg.Config]) -> CheckedConfig:
        # Shape's own __new__ shares one instance among equal sets of fields.
        instance = object.__new__(cls)
        instance._initialized = False
        return instance

    def __init__(self, model: type[dg.Config]) -> None:
        super().__init__(model.to_fields_dict())  # type: ignore[no-untyped-call]
        self._model = model

    def post_process(self, value: dict[str, Any]) -> dict[str, Any]:
        """Part of Dagster's resolution of a run's configuration."""
        try:
            self._model(**value)
        except ValidationError as error:
            raise PostProcessingError(
                "; ".join(
                    f"{'.'.join(map(str, fault['loc'])) or 'config'} = {fault['input']!r}: "
                    f"{fault['msg'].removeprefix('Value error, ')}"
                    for fault in error.errors()
                )
            ) from error
        return value


def checked(model: type[dg.Config]) -> dg.Field:
    """For `config_schema=` of an asset; its body calls `config_of` with the same class."""
    return dg.Field(CheckedConfig(model))


def config_of(context: dg.AssetExecutionContext, model: type[AssetConfig]) -> AssetConfig:
    """The configuration of the asset that is being materialized."""
    return model(**context.op_execution_context.op_config)
