import numpy as np
import pytest

from sama.data.texts.base import TextPart
from sama.data.texts.splits import meta_and_validation, normalised, text_overlap
from sama.errors import SamaError


def part(label: list[int], prefix: str = "v", texts: tuple[str, ...] | None = None) -> TextPart:
    ids = np.array([f"{prefix}/{i:03d}" for i in range(len(label))])
    return TextPart(ids, texts or tuple(f"{prefix} text {i}" for i in range(len(label))), np.array(label))


def test_division_is_disjoint_complete_stratified_and_by_seed():
    whole = part([0] * 40 + [1] * 20)
    meta, chosen_on = meta_and_validation(whole, use="divided", meta=0.5, seed=1)
    assert np.bincount(meta.label).tolist() == np.bincount(chosen_on.label).tolist() == [20, 10]
    assert sorted([*meta.sample_id, *chosen_on.sample_id]) == whole.sample_id.tolist()
    assert all(text.split()[-1] == str(int(name[2:])) for name, text in zip(meta.sample_id, meta.text, strict=True))
    again, _ = meta_and_validation(whole, use="divided", meta=30, seed=1)
    other, _ = meta_and_validation(whole, use="divided", meta=30, seed=2)
    assert np.array_equal(again.sample_id, meta.sample_id) and not np.array_equal(other.sample_id, meta.sample_id)


def test_texts_without_a_label_are_no_meta_texts():
    meta, chosen_on = meta_and_validation(part([0, -1] * 10 + [1, -1] * 10), use="divided", meta=0.5, seed=3)
    assert sorted(meta.label.tolist()) == [0] * 5 + [1] * 5
    assert len(chosen_on) == 30 and (chosen_on.label == -1).sum() == 20


@pytest.mark.parametrize("seed", range(4))
def test_equal_texts_stand_in_one_of_the_two(seed):
    texts = tuple(f"Text  {i % 20}" if i % 2 else f"text {i % 20}" for i in range(60))  # each number thrice
    meta, chosen_on = meta_and_validation(part([0] * 60, texts=texts), use="divided", meta=0.5, seed=seed)
    assert len(meta) + len(chosen_on) == 60 and len(meta) == 30
    assert text_overlap({"a": meta, "b": chosen_on})["a/b"]["shared"] == 0


def test_the_papers_way_uses_the_whole_split_for_both():
    whole = part([0, 1, 1])
    assert meta_and_validation(whole, use="validation_as_both", meta=0.5, seed=0) == (whole, whole)


def test_sizes_and_labels_that_do_not_serve_are_said():
    for meta, size in ((0, 0), (4, 4), (0.1, 0)):
        with pytest.raises(SamaError, match=rf"data.splits.meta: {meta} of the 4 validation texts is {size}: expected"):
            meta_and_validation(part([0, 1, 0, 1]), use="divided", meta=meta, seed=0)
    with pytest.raises(SamaError, match=r"meta: 0.5 of the 1 labelled, distinct validation texts is 1: expected"):
        meta_and_validation(part([0, -1, -1]), use="divided", meta=0.5, seed=0)
    for use in ("divided", "validation_as_both"):
        with pytest.raises(SamaError, match=r"validation: expected clean labels, got none for 3 texts"):
            meta_and_validation(part([-1, -1, -1]), use=use, meta=1, seed=0)
    with pytest.raises(SamaError, match="meta: 1 of the 1 labelled, distinct validation texts is 1: expected"):
        meta_and_validation(part([0, 1], texts=("a", "A")), use="divided", meta=1, seed=0)
    with pytest.raises(ValueError, match="got 'both'"):
        meta_and_validation(part([0, 1]), use="both", meta=1, seed=0)  # pyright: ignore[reportArgumentType]


def test_texts_are_the_same_in_spite_of_case_space_and_invisible_characters():
    assert normalised(" Stra\u00dfe\u00a0 \ufb01n\u200b\n\ufeff") == normalised("STRASSE fin") == "strasse fin"
    assert normalised("a b") != normalised("ab")


def test_overlap_names_the_pairs():
    parts = {"train": part([0, 0], "a", ("One text", "other")), "test": part([0], "b", ("one  TEXT\ufeff",))}
    found = text_overlap(parts)
    assert found == {"train/test": {"shared": 1, "train": 1, "test": 1, "examples": [["a/000", "b/000"]]}}
