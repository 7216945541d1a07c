"""The engine: recipes in, proved artifacts out. It knows no stage and imports no tensor library."""

import os

# Pydantic looks through the metadata of every installed package for plugins, which costs each process 30 ms; we use none.
os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")

__version__ = "0.1.0"
