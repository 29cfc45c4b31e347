"""scikit-learn's handwritten digits: 1797 grey 8x8 images, no files, no test part of its own."""

import numpy as np

from sama.data.sources.base import Source, SourceOptions, array_part


def open_digits(options: SourceOptions) -> Source:
    """The 1797 digits; intensities 0..16 become 0..255 (rounded)."""
    from sklearn.datasets import load_digits

    values, labels = load_digits(return_X_y=True)  # floats 0..16 [1797, 64], [1797]
    pixels = np.rint(np.asarray(values).reshape(-1, 8, 8) * (255.0 / 16.0)).astype(np.uint8)
    names = tuple(str(digit) for digit in range(10))
    return Source(names, 1, array_part("digits", "digits", pixels, np.asarray(labels)))
