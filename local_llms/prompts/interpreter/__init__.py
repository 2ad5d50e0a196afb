"""Chat templates, carried out with bounds and without losing sight of who wrote which character."""
