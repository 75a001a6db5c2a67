"""A plugin of pytest: `mobilenet._engine` is the module whose path EMULATED_ENGINE holds."""

import os
import sys
from importlib.machinery import ExtensionFileLoader
from importlib.util import module_from_spec, spec_from_file_location

import mobilenet

NAME = "mobilenet._engine"

path = os.environ["EMULATED_ENGINE"]
loader = ExtensionFileLoader(NAME, path)
spec = spec_from_file_location(NAME, path, loader=loader)
assert spec
module = module_from_spec(spec)
loader.exec_module(module)
sys.modules[NAME] = module
setattr(mobilenet, "_engine", module)  # noqa: B010
