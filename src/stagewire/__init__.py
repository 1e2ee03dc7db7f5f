"""Stagewire: a model registry with stages, an ordered change log, and deployment agents."""

__version__ = "0.1.0"
