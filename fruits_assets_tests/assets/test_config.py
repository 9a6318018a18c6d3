"""Wrong configuration is refused at launch, before anything runs."""

from __future__ import annotations

from typing import Any

import dagster as dg
import pytest

from fruits_assets.definitions import defs
from fruits_assets_tests.graph import run_config


def launch(config: dict[str, dict[str, Any]]) -> None:
    """What a launch does with a run's configuration: build the execution plan."""
    job = defs.resolve_job_def("fruits_pipeline")
    dg.validate_run_config(job, run_config(config))


def message(config: dict[str, dict[str, Any]]) -> str:
    with pytest.raises(dg.DagsterInvalidConfigError) as error:
        launch(config)
    return str(error.value)


@pytest.mark.parametrize("n_components", [0, -1, 1281])
def test_n_components_outside_1_to_1280(n_components: int) -> None:
    text = message({"pca_model": {"n_components": n_components}})
    assert f"n_components = {n_components}" in text
    assert "1280" in text or "1" in text


@pytest.mark.parametrize("target", [0.0, -0.5, 1.01])
def test_target_variance_outside_0_to_1(target: float) -> None:
    assert f"target_variance = {target}" in message({"pca_model": {"target_variance": target}})


def test_both_ways_to_choose_components_at_once() -> None:
    text = message({"pca_model": {"n_components": 10, "target_variance": 0.9}})
    assert "n_components = 10 and target_variance = 0.9 are both set: set one of them" in text


def test_a_batch_size_of_zero() -> None:
    assert "batch_size = 0" in message({"mobilenet_features": {"batch_size": 0}})


def test_an_unknown_layout() -> None:
    assert "layout" in message({"pca_features_csv": {"layout": "sideways"}})


def test_an_unknown_precision() -> None:
    assert "precision" in message({"mobilenet_model": {"precision": "int4"}})


def test_a_group_pattern_that_is_none() -> None:
    text = message({"fruit_classifier": {"group_pattern": "(frame"}})
    assert "group_pattern = '(frame': no regular expression of Python: missing )" in text


@pytest.mark.parametrize(
    ("field", "value"),
    [("validation_share", 0.0), ("test_share", 1.0), ("n_components", 0), ("refused_share", 0.5)],
)
def test_a_classifier_that_could_not_be_trained_or_measured(field: str, value: float) -> None:
    assert f"{field} = {value}" in message({"fruit_classifier": {field: value}})


def test_shares_that_leave_nothing_for_training() -> None:
    text = message({"fruit_classifier": {"validation_share": 0.5, "test_share": 0.5}})
    assert "validation_share = 0.5 and test_share = 0.5 leave nothing for training" in text


def test_an_unknown_field() -> None:
    assert "components" in message({"pca_model": {"components": 3}})


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"pca_model": {"n_components": 1}},
        {"mobilenet_model": {"precision": "int8"}},
        {"pca_model": {"n_components": 1280}},
        {
            "fruit_classifier": {
                "n_components": 20,
                "group_pattern": r"^(.*/[a-z]*\d*_)\d+_100\.jpg$",
                "seed": 3,
            }
        },
        {"pca_model": {"target_variance": 1.0, "min_total_variance": 0.9}},
        {"pca_features_csv": {"layout": "vector"}, "scaled_features": {"with_mean": False}},
    ],
)
def test_right_configuration_is_accepted(config: dict[str, dict[str, Any]]) -> None:
    launch(config)


def test_a_wrong_value_stops_a_run_before_its_first_step() -> None:
    job = defs.resolve_job_def("fruits_pipeline")
    instance = dg.DagsterInstance.ephemeral()
    with pytest.raises(dg.DagsterInvalidConfigError):
        job.execute_in_process(
            run_config={"ops": {"pca_model": {"config": {"n_components": 0}}}}, instance=instance
        )
    assert instance.get_runs_count() == 0
