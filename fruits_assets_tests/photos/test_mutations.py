from __future__ import annotations

import random

import pytest

from fruits_assets_tests.photos.mutations import ACCEPTED, BAD, mutated, outcome
from fruits_assets_tests.photos.photo_files import ORDINARY, PERSONAL

PHOTOS = ORDINARY | PERSONAL
N_MUTATIONS = 40


@pytest.mark.parametrize("name", PHOTOS)
@pytest.mark.filterwarnings("ignore")  # Pillow complains of what it is shown
def test_damaged_photo_is_refused_or_keeps_its_pixels(name: str) -> None:
    content = PHOTOS[name]()
    assert outcome(content) == ACCEPTED
    choose = random.Random(name)
    for number in range(N_MUTATIONS):
        damaged = mutated(content, choose)
        assert outcome(damaged) not in BAD, f"mutation {number}"
