"""Programs for the people who work on this project; no part of what is installed."""
