from itertools import product

from sama.data.seeding import PURPOSES, generator


def test_purposes_seeds_and_parts_have_streams_of_their_own_and_repeat():
    keys = list(product(PURPOSES, (0, 1), (0, 1, 2)))
    draws = {key: generator(*key).integers(2**62) for key in keys}
    assert len(set(draws.values())) == len(keys) == 24
    assert draws == {key: generator(*key).integers(2**62) for key in keys}
