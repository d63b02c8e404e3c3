"""`python -m models.bench NAME FOLDER`: write a bench model and print the paths of its files."""

from __future__ import annotations

import argparse
from pathlib import Path

from models.bench import NAMES, make

parser = argparse.ArgumentParser(prog="python -m models.bench", description=__doc__)
parser.add_argument("name", choices=NAMES)
parser.add_argument("folder", type=Path)
arguments = parser.parse_args()
made = make(arguments.name, arguments.folder)
for file in (made.model, made.projector):
    print(file)
