"""NCE (Tran et al., 2019) and LEEP (Nguyen et al., 2020), for models that bring a head for other classes.

How much do the head's answers about its own classes tell about ours? Both are log-likelihoods a row, at most 0: how
well our labels are guessed from the head's answers by nothing more than a table of the two.

Shapes: n rows, Z classes of the head.
"""

from __future__ import annotations

import numpy as np


def leep(source: np.ndarray, classes: np.ndarray) -> float:
    """The log expected empirical prediction.

    Args:
        source: (n, Z) the head's probabilities. classes: (n,) ids.
    """
    theta = np.asarray(source, np.float64)
    _, ids = np.unique(classes, return_inverse=True)
    joint = np.zeros((ids.max() + 1, theta.shape[1]))  # P(y, z)
    np.add.at(joint, ids, theta)
    given = joint / np.maximum(joint.sum(axis=0), 1e-300)  # P(y | z)
    return float(np.log(np.maximum((theta * given[ids]).sum(axis=1), 1e-300)).mean())


def nce(source: np.ndarray, classes: np.ndarray) -> float:
    """The negative conditional entropy −H(y | z), in nats; z is the head's most likely class.

    Args:
        source: (n, Z) the head's probabilities. classes: (n,) ids.
    """
    _, y = np.unique(classes, return_inverse=True)
    joint = np.zeros((y.max() + 1, source.shape[1]))
    np.add.at(joint, (y, source.argmax(axis=1)), 1.0 / len(y))
    p_z = joint.sum(axis=0, keepdims=True)
    seen = joint > 0
    return float((joint[seen] * np.log((joint / np.where(p_z > 0, p_z, 1.0))[seen])).sum())
