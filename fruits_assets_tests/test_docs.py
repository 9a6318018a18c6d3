"""README and docs: what they link to, call and name is there."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import unquote

import dagster as dg
import pytest
import yaml

from fruits_assets.definitions import EmrSettings, Settings, defs

REPOSITORY = Path(__file__).parents[1]
PAGES = [
    REPOSITORY / "README.md",
    REPOSITORY / "bootstrap" / "README.md",
    REPOSITORY / "benchmarks" / "README.md",
    *sorted((REPOSITORY / "docs").glob("*.md")),
]
TEXT = {page: page.read_text(encoding="utf-8") for page in PAGES}
SETTINGS = {f"FRUITS_{name}".upper() for name in Settings.model_fields} | {
    f"FRUITS_EMR_{name}".upper() for name in EmrSettings.model_fields
}
# Of the scripts themselves, not of the graph.
OTHER_VARIABLES = {"FRUITS_VENV"}


def anchors(page: Path) -> set[str]:
    """The names by which headings can be linked to, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def named(page: Path) -> str:
    return str(page.relative_to(REPOSITORY))


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_links_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)\s]+)\)", TEXT[page])
    for link in links:
        if "://" in link or link.startswith("mailto:"):
            continue
        path, _, anchor = unquote(link).partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        if anchor:
            assert anchor in anchors(target), link


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_files_that_are_named_exist(page: Path) -> None:
    folders = "fruits_assets|bootstrap|benchmarks|tools|docs"
    for name in re.findall(rf"`((?:{folders})/[\w./-]+)`", TEXT[page]):
        assert (REPOSITORY / name).exists(), name


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_targets_of_make_exist(page: Path) -> None:
    targets = set(re.findall(r"^ *(?:FRUITS_\w+=\S+ )?make ([a-z][a-z-]*)", TEXT[page], re.MULTILINE))
    targets |= set(re.findall(r"`make ([a-z][a-z-]*)", TEXT[page]))
    makefile = (REPOSITORY / "Makefile").read_text(encoding="utf-8")
    assert targets <= set(re.findall(r"^([a-z][a-z-]*):", makefile, re.MULTILINE))


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_settings_that_are_named_exist(page: Path) -> None:
    names = set(re.findall(r"FRUITS_[A-Z_]+[A-Z](?![A-Z_])", TEXT[page])) - OTHER_VARIABLES
    assert names <= SETTINGS, names - SETTINGS


def test_all_settings_are_explained() -> None:
    page = TEXT[REPOSITORY / "docs" / "settings.md"]
    for name, field in Settings.model_fields.items():
        assert f"| `FRUITS_{name}".upper() in page.upper(), name
        # Those that the table gives as a value; others are said in words.
        if isinstance(field.default, int) or name == "spark_master":
            (row,) = re.findall(rf"^\| `FRUITS_{name.upper()}` \| ([^|]*) \|", page, re.MULTILINE)
            assert row.strip("`") == str(field.default), name


def test_all_settings_of_emr_are_explained_or_given_by_the_stack() -> None:
    page = TEXT[REPOSITORY / "docs" / "emr.md"]
    stack = (REPOSITORY / "bootstrap" / "emr-stack.yaml").read_text(encoding="utf-8")
    given = set(re.findall(r"export (FRUITS_EMR_\w+)=", stack))
    rows = dict(re.findall(r"^\| `(FRUITS_EMR_\w+)` \| ([^|]*) \|", page, re.MULTILINE))
    fields = {f"FRUITS_EMR_{name}".upper(): field for name, field in EmrSettings.model_fields.items()}
    assert rows.keys() == fields.keys() - given
    for name, shown in rows.items():
        default = fields[name].default
        expected = (
            "none" if default == "" else str(default).lower() if isinstance(default, bool) else str(default)
        )
        assert shown.partition(":")[0].strip("`") == expected, name


def benchmarks_called() -> list[tuple[str, tuple[str, ...]]]:
    """Each benchmark that a page calls, with the options that it is given anywhere."""
    options: dict[str, set[str]] = {}
    for text in TEXT.values():
        for name, rest in re.findall(r"(?:benchmarks/|`)(\w+\.py)((?: [^`|\n]*)?)", text):
            if (REPOSITORY / "benchmarks" / name).exists():
                options.setdefault(name, set()).update(re.findall(r"--[a-z][a-z-]*", rest))
    return sorted((name, tuple(sorted(given))) for name, given in options.items() if given)


@pytest.mark.parametrize(("name", "options"), benchmarks_called(), ids=lambda value: str(value))
def test_benchmarks_know_the_options_that_they_are_shown_with(name: str, options: tuple[str, ...]) -> None:
    # Parsed, not run: to import all of them takes longer than to read what they add to their parsers.
    source = (REPOSITORY / "benchmarks" / name).read_text(encoding="utf-8")
    for option in options:
        assert f'"{option}"' in source, option


def test_settings_page_shows_a_configuration_that_is_valid() -> None:
    page = TEXT[REPOSITORY / "docs" / "settings.md"]
    (block,) = re.findall(r"^    ops:\n(?:     .*\n)+", page, re.MULTILINE)
    config = yaml.safe_load(block)
    job = defs.resolve_job_def("fruits_pipeline")
    assert dg.validate_run_config(job, config)
    with pytest.raises(dg.DagsterInvalidConfigError):
        dg.validate_run_config(job, {"ops": {**config["ops"], "pca_model": {"config": {"components": 3}}}})
