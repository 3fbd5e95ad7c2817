"""A net, trained or packaged, run over whole images through the same tiling, stitching and labelling that serve it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from model.label_rule import LabelRule
from model.normalization import Step, fit
from model.package import Package
from model.planner import Planner
from model.session import Backend, InferenceSession, SessionOptions, open_session
from model.stitching import Run, predict_tiled
from model.tiling import Geometry
from model.unet import UNet
from model.views import plan_views
from training.recipe import Recipe

_MOST_TILE_PIXELS = 1 << 21  # activations of a net of base width 64 stay below 4 GB


@dataclass(frozen=True, slots=True)
class Predictor:
    """A net with everything that turns an image into probabilities, and those into objects.

    Parameters
    ----------
    run, normalization, geometry, label_rule
        As the package declares them.
    classes
        Names of the net's classes.
    mirror
        Whether probabilities are the mean over mirrored and turned views (:mod:`model.views`), as the service gives
        where it is asked for; figures of a package's card are those of one view.

    """

    run: Run
    normalization: Sequence[Step]
    geometry: Geometry
    label_rule: LabelRule
    classes: tuple[str, ...]
    mirror: bool = False

    def probabilities(self, image_yxc: NDArray[Any]) -> NDArray[np.float32]:
        """Probabilities (c, y, x) of a whole image (y, x, c), margins mirrored."""
        fitted = fit(self.normalization, image_yxc)
        planner = Planner(self.geometry, _MOST_TILE_PIXELS)
        plan = plan_views(planner, (image_yxc.shape[0], image_yxc.shape[1]), mirror=self.mirror)
        return predict_tiled(image_yxc, fitted, plan, self.run)


def net_predictor(net: UNet, recipe: Recipe) -> Predictor:
    """Return a predictor that runs a net in torch, on the net's device, in the recipe's precision."""
    device = next(net.parameters()).device
    half = recipe.schedule.precision == "bf16"

    def run(tiles_bcyx: NDArray[np.float32]) -> NDArray[np.float32]:
        tiles = torch.from_numpy(tiles_bcyx).to(device, memory_format=torch.channels_last)
        with torch.inference_mode(), torch.autocast(device.type, dtype=torch.bfloat16, enabled=half):
            logits = net(tiles)
        probabilities: NDArray[np.float32] = torch.softmax(logits.float(), dim=1).cpu().numpy()
        return probabilities

    return Predictor(run, recipe.normalization, recipe.geometry, recipe.labels, recipe.targets.classes)


def package_predictor(package: Package, backend: Backend = "cpu") -> Predictor:
    """Return a predictor that runs a package in ONNX Runtime, in fp32."""
    return session_predictor(package, open_session(package, SessionOptions(backend=backend)))


def session_predictor(package: Package, session: InferenceSession) -> Predictor:
    """Return a predictor that runs a package's open session, as the service does."""
    spec = package.spec
    return Predictor(session.run, spec.normalization, spec.geometry, spec.label_rule, spec.classes)
