"""The ``local-llms`` command. Each command is a module; heavy libraries are imported only while one runs."""
