"""A client for Python: images in, results out, with patience for a busy server.

This folder can be copied beside a script, under any name: it needs httpx, NumPy and Python 3.9 or later, and nothing of
this project::

    with Client("http://127.0.0.1:8000") as client:
        labels = client.segment_array(image_yx, output="labels")
        Path("mask.tif").write_bytes(client.segment("cells.tif", format="tiff"))
        for path, mask in zip(paths, client.map(paths)):
            print(path, mask.any())
"""

from __future__ import annotations

# relative, so that the folder can stand anywhere
from .answers import RECEIPT, ServiceGone, ServiceProblem, ServiceUnreachable  # noqa: TID252
from .client import Client  # noqa: TID252
from .jobs import HungUp, Job  # noqa: TID252
from .keys import KEY_URL_VARIABLE, KEY_VARIABLE  # noqa: TID252
from .request import Image  # noqa: TID252

__all__ = [
    "KEY_URL_VARIABLE",
    "KEY_VARIABLE",
    "RECEIPT",
    "Client",
    "HungUp",
    "Image",
    "Job",
    "ServiceGone",
    "ServiceProblem",
    "ServiceUnreachable",
]
