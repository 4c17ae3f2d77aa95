"""Make detector frames to try the example with: powder rings on a falling background, with noise.

python simulate.py FOLDER [--frames 6] [--seed 1]

Needs nothing but Python. Prints the radii of the rings, for comparison.
"""

from __future__ import annotations

import argparse
import array
import math
import random
from pathlib import Path

SIZE = 256
CENTRE = (127.3, 128.6)  # row, column
RINGS = {31.0: 400.0, 62.5: 250.0, 94.2: 150.0}  # radius in pixels: counts
WIDTH = 1.8


def expected(row: int, column: int) -> float:
    """Counts of a pixel without noise."""
    radius = math.hypot(row - CENTRE[0], column - CENTRE[1])
    rings = sum(
        counts * math.exp(-((radius - ring) ** 2) / (2 * WIDTH**2))
        for ring, counts in RINGS.items()
    )
    return 40 + 300 * math.exp(-radius / 25) + rings


def write_npy(path: Path, values: array.array[int]) -> None:
    """The file format of numpy, version 1."""
    text = f"{{'descr': '<u2', 'fortran_order': False, 'shape': ({SIZE}, {SIZE}), }}"
    header = text.ljust(-(-(len(text) + 11) // 64) * 64 - 11) + "\n"
    magic = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little")
    path.write_bytes(magic + header.encode() + values.tobytes())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--frames", type=int, default=6)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    dice = random.Random(options.seed)
    ideal = [expected(row, column) for row in range(SIZE) for column in range(SIZE)]
    for number in range(1, options.frames + 1):
        # counting noise, as a detector has it
        noisy = (max(0, round(dice.gauss(mean, math.sqrt(mean)))) for mean in ideal)
        write_npy(options.folder / f"frame_{number:04d}.npy", array.array("H", noisy))
    print(f"{options.frames} frames in {options.folder}; centre {CENTRE[0]} {CENTRE[1]};")
    print(f"rings at {', '.join(f'{radius:g}' for radius in RINGS)} pixels")


if __name__ == "__main__":
    main()
