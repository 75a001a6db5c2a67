"""The command line: every verb's options are generated from its function's signature."""

import functools
import inspect
import json
import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, get_args

import mobilenet

from .errors import MobilenetError, UsageError

VERBS = {
    "info": "Print a network's table with its parameters, multiply-adds and activation memory.",
    "data compose": "Compose labelled scenes of cut-outs pasted on photographs: COCO JSON, PNG "
    "masks, pictures.",
    "doctor": "Check a dataset without training on it, or, without one, this machine.",
    "train": "Train a MobileNet on labelled images, from ImageNet weights or from scratch.",
    "evaluate": "Measure a run or an exported artifact on labelled images.",
    "predict": "Name what is on pictures, or find it: boxes, masks, keypoints.",
    "import": "Make a run of a MobileNet made elsewhere, and check that it answers alike.",
    "quantize": "Make an int8 network of a float one, and repair it until it answers as well.",
    "export": "Convert a trained run to a model file that other runtimes read, and prove it.",
    "verify": "Compare an exported file with its run on labelled pictures; write certificate.json.",
    "benchmark": "Time a model with several runtimes, in turns, NumPy arrays in and out.",
}

# what Python calls a verb whose name it keeps for itself, or that has two words
FUNCTIONS = {"import": "import_model", "data compose": "compose"}

_RAISES = re.compile(r"(?:(?<=\n)|(?<=\. ))Raises [A-Z][^:]*?\.\s*?(?=\n\n|\Z)", re.S)

_INTRODUCTION = """usage: mobilenet VERB ...

A folder of images in; a small, fast, proven vision model out.
"""

_CLOSING = """
  mobilenet train flowers/ --out runs/flowers       flowers/ holds a folder for each class
  mobilenet export runs/flowers --to onnx --out flowers-onnx
  mobilenet verify flowers-onnx flowers/

mobilenet VERB --help explains a verb; every verb takes --json. Exit codes: 0 done, 1 failed or a
gate did not hold, 2 wrong usage, 130 interrupted."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a verb; exits with its code."""
    try:
        _main(sys.argv[1:] if arguments is None else list(arguments))
    except BrokenPipeError:  # the reader has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)


def _main(arguments: list[str]) -> None:
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_overview(), flush=True)
        sys.exit(0 if arguments else 2)
    if arguments[0] == "--version":
        print(f"mobilenet {version('mobilenet')}")
        sys.exit(0)
    name, *options = arguments
    if options and f"{name} {options[0]}" in VERBS:
        name, options = f"{name} {options[0]}", options[1:]
    if name not in VERBS:
        print(f"mobilenet: verb {name!r}: expected one of {', '.join(VERBS)}", file=sys.stderr)
        sys.exit(2)
    import tyro  # here, so that the overview does not wait for it

    as_json, run = tyro.cli(
        _with_json(getattr(mobilenet, FUNCTIONS.get(name, name))),
        prog=f"mobilenet {name}",
        args=options,
        config=(
            tyro.conf.OmitArgPrefixes,
            tyro.conf.FlagCreatePairsOff,
            tyro.conf.PositionalMetavarFromFieldName,
            tyro.conf.UseAppendAction,
        ),
    )
    sys.exit(_exit_code(run, as_json))


def _overview() -> str:
    verbs = [f"  {name:<12} {summary}" for name, summary in VERBS.items()]
    return "\n".join([_INTRODUCTION, *verbs, _CLOSING])


def _exit_code(run: Callable[[], Any], as_json: bool) -> int:
    try:
        result = run()
        for line in _lines(result, as_json):
            print(line, flush=True)
    except UsageError as error:
        print(f"mobilenet: {error}", file=sys.stderr)
        return 2
    except MobilenetError as error:
        print(f"mobilenet: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0 if getattr(result, "ok", True) else 1


def _lines(result: Any, as_json: bool) -> Iterator[str]:
    """What is printed of a result; line by line where that has lines, which may take their time."""
    if as_json and hasattr(result, "json_lines"):
        yield from map(json.dumps, result.json_lines())
    elif not as_json and hasattr(result, "lines"):
        yield from result.lines()
    else:
        yield json.dumps(result.to_json(), indent=2) if as_json else str(result)


def _with_json(verb: Callable[..., Any]) -> Callable[..., tuple[bool, Callable[[], Any]]]:
    """The verb's signature with --json added; called, it gives what to run instead of running."""

    @functools.wraps(verb)
    def deferred(*values: Any, json: bool, **options: Any) -> tuple[bool, Callable[[], Any]]:
        return json, lambda: verb(*values, **options)

    signature = inspect.signature(verb)
    parameters = [_as_argument(parameter) for parameter in signature.parameters.values()]
    extra = inspect.Parameter(
        "json", inspect.Parameter.KEYWORD_ONLY, default=False, annotation=bool
    )
    deferred.__signature__ = signature.replace(  # pyright: ignore[reportAttributeAccessIssue]
        parameters=[*parameters, extra], return_annotation=tuple
    )
    deferred.__annotations__ = {p.name: p.annotation for p in [*parameters, extra]}
    del deferred.__wrapped__  # pyright: ignore[reportFunctionMemberAccess] - its document counts
    document = _RAISES.sub("", inspect.getdoc(verb) or "")
    if "\nArgs:\n" not in document:
        document += "\n\nArgs:"
    deferred.__doc__ = f"{document}\n    json: Print JSON on stdout, and nothing else there.\n"
    return deferred


def _as_argument(parameter: inspect.Parameter) -> inspect.Parameter:
    """A function's parameter as tyro shall see it: positional where Python takes it by position,
    an option named in the help by its type without "or None"."""
    import tyro

    if parameter.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD:
        return parameter.replace(kind=inspect.Parameter.POSITIONAL_ONLY)
    given = [kind for kind in get_args(parameter.annotation) if kind is not type(None)]
    if parameter.default is None and given in ([int], [float], [str], [Path]):
        metavar = tyro.conf.arg(metavar=given[0].__name__.upper())
        return parameter.replace(annotation=Annotated[parameter.annotation, metavar])
    return parameter


if __name__ == "__main__":
    main()
