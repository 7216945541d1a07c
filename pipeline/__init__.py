"""The engine: recipes in, proved artifacts out. It knows no stage and imports no tensor library."""

__version__ = "0.1.0"
