"""Labelled scenes made of cut-outs: objects with alpha pasted on photographs."""

from .verb import Composed, compose

__all__ = ["Composed", "compose"]
