"""The graph: one module per asset, with its configuration, metadata and checks."""
