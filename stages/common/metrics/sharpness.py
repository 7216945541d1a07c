"""Sharpness: are samples as crisp as real images, or blurred?

`evaluate.load("stages/common/metrics/sharpness.py")`. Two ratios to real images, 1 for samples as sharp as they are:
- Laplacian energy: mean of (4 x - its four neighbours)² over inner pixels. Blur lowers it, and so does weak contrast.
- high-frequency share: power at more than 1/4 cycle per pixel (r > H/4 in a square image's spectrum), divided by all power
  but the mean's. Contrast and brightness cancel in it. Low in both: blurred; low in the first only: pale.
"""

import datasets
import evaluate
import numpy as np

_DESCRIPTION = "Laplacian energy and share of high-frequency power of samples, as ratios to real images. 1 is as sharp."
_INPUTS = """
Args:
    predictions: samples, numbers [n, C, H, W], H and W at least 3.
    references: real images, numbers [m, C, H, W]; m may differ from n.
Returns:
    laplacian_ratio: Laplacian energy of the samples over that of the real images.
    high_frequency_ratio: the same of the shares of high-frequency power; 0 for samples without any contrast.
Raises:
    ValueError: not two finite sets of one shape, no image, too small a one, or real images without contrast.
"""


class Sharpness(evaluate.Metric):
    """Laplacian and high-frequency ratios."""

    def _info(self) -> evaluate.MetricInfo:
        image = datasets.Sequence(datasets.Sequence(datasets.Sequence(datasets.Value("float64"))))
        features = datasets.Features({"predictions": image, "references": image})
        return evaluate.MetricInfo(description=_DESCRIPTION, citation="", inputs_description=_INPUTS, features=features)

    def compute(self, *, predictions: np.ndarray, references: np.ndarray) -> dict[str, float]:
        """Compare two whole sets, which need not be of one size."""
        shapes = np.shape(predictions)[1:], np.shape(references)[1:]
        if shapes[0] != shapes[1]:
            raise ValueError(f"predictions are images of shape {shapes[0]}, references of {shapes[1]}; they must be alike")
        return sharpness_ratios(energies("predictions", predictions), energies("references", references))


def energies(name: str, images: np.ndarray) -> np.ndarray:
    """Return for each of [n, C, H, W] its Laplacian energy, high-frequency power and power without the mean's, [n, 3]."""
    x = np.asarray(images, dtype=np.float64)
    if x.ndim != 4 or not len(x) or min(x.shape[2:]) < 3 or not np.isfinite(x).all():
        raise ValueError(f"{name}: finite images [n, C, H, W] of 3x3 pixels or more are needed, got shape {x.shape}")
    inner = x[:, :, 1:-1, 1:-1]
    around = x[:, :, :-2, 1:-1] + x[:, :, 2:, 1:-1] + x[:, :, 1:-1, :-2] + x[:, :, 1:-1, 2:]
    laplacian = np.mean((4 * inner - around) ** 2, axis=(1, 2, 3))
    centred = x - x.mean(axis=(2, 3), keepdims=True)
    power = np.abs(np.fft.fft2(centred)) ** 2
    vertical, horizontal = np.fft.fftfreq(x.shape[2])[:, None], np.fft.fftfreq(x.shape[3])[None, :]
    high = np.hypot(vertical, horizontal) > 0.25
    return np.stack([laplacian, power[:, :, high].sum(axis=(1, 2)), power.sum(axis=(1, 2, 3))], axis=1)


def sharpness_ratios(predictions: np.ndarray, references: np.ndarray) -> dict[str, float]:
    """Return both ratios of two tables of `energies`."""
    laplacian, high, power = predictions.mean(axis=0)
    real_laplacian, real_high, real_power = references.mean(axis=0)
    if not min(real_laplacian, real_high) > 0:
        raise ValueError("references: the real images have no edges at all; sharpness has no meaning for them")
    share = high / power if power > 0 else 0.0
    return {"laplacian_ratio": float(laplacian / real_laplacian), "high_frequency_ratio": float(share / (real_high / real_power))}
