"""TransRate (Huang et al., 2022): how many nats the features tell about the classes, by coding rates.

`R(Z) = ½ log det(I + Z'Z / (n ε))` is the rate at which the centred features can be coded up to a distortion ε;
TransRate is the rate of all rows less the mean rate of the rows of one class.

Shapes: n rows, F features.
"""

from __future__ import annotations

import numpy as np

DISTORTION = 1e-4


def _rate(z: np.ndarray, distortion: float) -> float:
    n, width = z.shape
    gram = z @ z.T if n < width else z.T @ z  # the same determinant
    return float(0.5 * np.linalg.slogdet(np.eye(len(gram)) + gram / (n * distortion))[1])


def transrate(features: np.ndarray, classes: np.ndarray, distortion: float = DISTORTION) -> float:
    """The score; as in the published code, every class counts the same.

    Args:
        features: (n, F). classes: (n,) ids.
    """
    z = np.asarray(features, np.float64)
    z = z - z.mean(axis=0)
    found = np.unique(classes)
    return _rate(z, distortion) - sum(_rate(z[classes == c], distortion) for c in found) / len(found)
