"""The analysis: azimuthal integration of detector frames, and the rings found in it.

This file is registered with Globus Compute as it is, and runs inside the container.
"""


def reduce_frames(folder, centre):
    """Reads ``folder/frames/*.npy`` and writes profile.csv, rings.json and mean.png to
    ``folder/reduced``. ``centre`` is the beam's row and column in pixels.

    Returns ``ok``, the number of frames, the rings' radii in pixels, and where it ran; or ``ok``
    false with a ``sentence``.
    """
    import csv
    import glob
    import json
    import os

    paths = sorted(glob.glob(os.path.join(folder, "frames", "*.npy")))
    if not paths:
        return {"ok": False, "sentence": f"There are no frames in {folder}/frames."}

    import numpy as np

    frames = np.stack([np.load(path, allow_pickle=False) for path in paths]).astype(float)
    mean = frames.mean(axis=0)
    radii, profile, spread = integrate(mean, centre)
    rings = find_rings(radii, profile)

    reduced = os.path.join(folder, "reduced")
    os.makedirs(reduced, exist_ok=True)
    with open(os.path.join(reduced, "profile.csv"), "w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["radius_px", "mean_counts", "std_counts"])
        rows.writerows(zip(radii.tolist(), profile.round(3), spread.round(3), strict=True))
    with open(os.path.join(reduced, "rings.json"), "w") as file:
        json.dump({"frames": len(paths), "centre": centre, "rings": rings}, file, indent=2)
    write_png(os.path.join(reduced, "mean.png"), np.log1p(mean))
    return {
        "ok": True,
        "frames": len(paths),
        "radii_px": [ring["radius_px"] for ring in rings],
        "numpy": np.__version__,
        "image": os.environ.get("APPTAINER_CONTAINER", ""),
        "job": os.environ.get("SLURM_JOB_ID", ""),
    }


def integrate(image, centre):
    """Mean and standard deviation of the counts at each whole radius around ``centre``."""
    import numpy as np

    rows, columns = np.indices(image.shape)
    distance = np.hypot(rows - centre[0], columns - centre[1])
    bins = np.rint(distance).astype(int)
    # corners that hold less than half of their circle say little
    last = int(min(image.shape) / 2)
    inside = bins <= last
    bins, counts = bins[inside], image[inside]
    number = np.bincount(bins, minlength=last + 1).clip(min=1)
    mean = np.bincount(bins, counts, last + 1) / number
    square = np.bincount(bins, counts**2, last + 1) / number
    return np.arange(last + 1), mean, np.sqrt((square - mean**2).clip(min=0))


def find_rings(radii, profile, window=15):
    """Peaks that stand out of the local background, with the radius between the pixels."""
    import numpy as np

    padded = np.pad(profile, window, mode="edge")
    around = np.lib.stride_tricks.sliding_window_view(padded, 2 * window + 1)
    above = profile - np.median(around, axis=1)
    noise = 1.4826 * np.median(np.abs(above - np.median(above)))
    rings = []
    for i in range(window // 2, len(radii) - window // 2):
        near = above[i - window // 2 : i + window // 2 + 1]
        if above[i] > max(8 * noise, 1e-9) and above[i] == near.max():
            weights = near.clip(min=0)
            where = radii[i - window // 2 : i + window // 2 + 1]
            radius = float((weights * where).sum() / weights.sum())
            rings.append({"radius_px": round(radius, 2), "counts": round(float(above[i]), 1)})
    return rings


def write_png(path, image):
    """A grey picture, without a plotting library."""
    import struct
    import zlib

    import numpy as np

    span = max(float(np.ptp(image)), 1e-9)
    grey = ((image - image.min()) / span * 255).astype(np.uint8)
    lines = b"".join(b"\0" + row.tobytes() for row in grey)

    def chunk(kind, data):
        check = zlib.crc32(kind + data)
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", check)

    header = struct.pack(">IIBBBBB", grey.shape[1], grey.shape[0], 8, 0, 0, 0, 0)
    with open(path, "wb") as file:
        file.write(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header))
        file.write(chunk(b"IDAT", zlib.compress(lines)) + chunk(b"IEND", b""))
