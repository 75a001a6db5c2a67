"""From a float network to one in int8 that answers as it does."""

from .calibrate import observe_ranges, quantise, quantise_program
from .verb import quantize

__all__ = ["observe_ranges", "quantise", "quantise_program", "quantize"]
