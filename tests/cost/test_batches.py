"""The largest batch that fits."""

import pytest

from flcl.cost import batches

FIXED, EACH, USABLE = 1_000, 10, 5_000


def figures(images: int, refused: bool = False, temporary: int = 0) -> dict:
    """Of a program that needs 1000 bytes of arguments, `temporary`, and 10 for each image."""
    needed = FIXED + temporary + EACH * images
    fits = needed <= USABLE
    memory = None if refused and not fits else {"arguments": FIXED, "code": 0}
    return {
        "images": images,
        "memory": memory,
        "parameter_bytes": FIXED,
        "required_bytes": needed,
        "fits": fits,
    }


def test_what_is_no_argument_is_taken_to_grow_with_the_batch():
    found = batches.largest(figures(80), USABLE, 16)
    assert found == {"images": 400, "how": batches.ESTIMATE}
    careful = batches.largest(figures(80, temporary=200), USABLE, 16)
    assert careful["images"] == 320 < 380  # which would fit


def test_a_refused_program_says_how_much_less_it_may_be():
    found = batches.largest(figures(800, refused=True), USABLE, 16)
    assert found == {"images": 400, "how": batches.REFUSED}
    silent = figures(800, refused=True) | {"required_bytes": None}
    assert batches.largest(silent, USABLE, 16) is None


def test_parameters_alone_can_be_too_much():
    assert batches.largest(figures(8) | {"memory": {"arguments": 6_000, "code": 0}}, USABLE, 8) == {
        "images": 0,
        "how": batches.ESTIMATE,
    }


@pytest.mark.parametrize("start", [80, 800])
def test_the_search_only_answers_what_it_has_compiled(start):
    compiled = []

    def measure(images):
        compiled.append(images)
        return figures(images, refused=True, temporary=200)

    first = figures(start, refused=True, temporary=200)
    found = batches.search(first, measure, USABLE, 4)
    assert found["how"] == batches.SEARCHED
    assert found["images"] in compiled and len(compiled) <= 3
    assert 340 < found["images"] <= 380


def test_the_search_steps_back_from_a_guess_that_does_not_fit():
    tried = []

    def measure(images):
        tried.append(images)
        return figures(images) | {"fits": images <= 200}

    found = batches.search(figures(80), measure, USABLE, 8)
    assert tried[0] == 400 and found["images"] <= 200 and found["images"] in [80, *tried]
