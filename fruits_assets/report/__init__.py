"""Numbers to pictures, for the metadata of assets."""
