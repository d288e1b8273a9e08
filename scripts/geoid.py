#!/usr/bin/env python3
"""Writes data/egm96-15.bin from the grid of the PyPI package egm96 (5', MIT; the model is in the public domain).

    pip download --no-deps egm96==0.3.0 && unzip egm96-0.3.0-*.whl && scripts/geoid.py egm96/data/egm96-5.npz

Needs numpy. Every third point of every third row: 721 rows from north to south, 1440 points each from 180 W to the east,
big-endian int16 in centimetres.
"""

import pathlib
import sys

import numpy

second_differences = numpy.load(sys.argv[1])["undulation_d2"].astype(numpy.int64)
centimetres = numpy.cumsum(numpy.cumsum(second_differences, axis=0), axis=1)
centimetres = (centimetres + 2**15) % 2**16 - 2**15
rows = centimetres[::-1, :-1][::3, ::3]
assert rows.shape == (721, 1440), rows.shape
out = pathlib.Path(__file__).parent.parent / "data" / "egm96-15.bin"
out.write_bytes(rows.astype(">i2").tobytes())
