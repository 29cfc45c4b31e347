"""The data that the tests of stages learn from: 200 digits, 80 of them to train on, 30 % of the labels wrong."""

DATA = {
    "source": "digits",
    "max_images": 200,
    "splits": {"meta": 30, "validation": 30, "test": 60},
    "noise": {"kind": "symmetric", "rate": 0.3},
}
