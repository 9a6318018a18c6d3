"""A Dagster asset graph that turns folders of fruit photos into principal components."""
