"""The families: one TOML file each, read by the catalog."""
