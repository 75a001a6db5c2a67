"""`to_web`: a classifier as a folder that any static host serves: a page, the engine compiled to
WebAssembly, and the engine's model file."""

from dataclasses import replace

from ..web import ENGINE, PAGE, asset, web_engine
from .artifact import ExportedFile, Job
from .engine import to_engine


def to_web(job: Job) -> ExportedFile:
    """The engine's file, with the page and its scripts beside it.

    Raises MissingWebEngine where the engine for browsers was not built.
    """
    engine = web_engine()
    rules = job.preprocess
    if rules.resize_mode == "crop_fraction":
        # the page cuts the central part out, what is left for the engine is to stretch it
        rules = replace(rules, resize_mode="stretch", crop_fraction=None)
    made = to_engine(replace(job, preprocess=rules))
    return replace(
        made,
        format="web",
        details={},
        beside={ENGINE: engine, **{name: asset(name) for name in PAGE}},
    )
