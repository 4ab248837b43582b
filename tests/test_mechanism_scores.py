import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ccrl_wsi.errors import EvaluationError
from ccrl_wsi.evaluation.mechanism_scores import cosine_similarity, match, score_mechanisms


def directions(*degrees):
    """Unit vectors in a plane: the nearest neighbour can be told by looking at the angles."""
    turn = np.radians(degrees)
    return np.stack([np.cos(turn), np.sin(turn)], axis=1)


# By hand: angle, compound, mechanism, batch.
TABLE = [
    (0, "a1", "A", "w1"),
    (2, "a1", "A", "w1"),  # nearer to row 0 than anything, but the same compound
    (10, "a2", "A", "w1"),
    (30, "b1", "B", "w1"),
    (31, "a3", "A", "w2"),
    (60, "b2", "B", "w2"),
    (64, "c1", "C", "w3"),  # C is in one batch only
    (70, "c2", "C", "w3"),
]


def columns():
    angle, compound, mechanism, batch = zip(*TABLE, strict=True)
    return directions(*angle), compound, mechanism, batch


def test_nsc_of_a_table_worked_out_by_hand():
    nsc = score_mechanisms(*columns()).nsc
    # Nearest of another compound: 0->10 A, 2->10 A, 10->2 A, 30->31 A (wrong), 31->30 B (wrong),
    # 60->64 C (wrong), 64->60 B (wrong), 70->64 is c1: C.
    assert nsc.correct.tolist() == [1, 1, 1, 0, 0, 0, 0, 1]
    assert nsc.nearest.tolist() == [2, 2, 1, 4, 3, 6, 5, 6]
    assert nsc.accuracy == 4 / 8
    assert nsc.mechanisms == ("A", "B", "C")
    assert nsc.confusion.tolist() == [[3, 1, 0], [1, 0, 1], [0, 1, 1]]
    assert nsc.accuracy_by_mechanism() == {"A": 3 / 4, "B": 0.0, "C": 1 / 2}


def test_nscb_of_a_table_worked_out_by_hand():
    scores = score_mechanisms(*columns())
    nscb = scores.nscb
    # C is left out, also as a neighbour. Other compound, other batch: 0->31 A, 2->31 A, 10->31 A,
    # 30->31 A (wrong), 31->30 B (wrong), 60->30 B.
    assert nscb.left_out == ("C",)
    assert nscb.is_scored.tolist() == [True] * 6 + [False] * 2
    assert nscb.correct[:6].tolist() == [1, 1, 1, 0, 0, 1]
    assert np.isnan(nscb.correct[6:]).all()
    assert nscb.accuracy == 4 / 6
    assert scores.drop == pytest.approx(4 / 8 - 4 / 6)
    assert "C" not in nscb.accuracy_by_mechanism()


def test_a_mechanism_of_one_compound_is_left_out_and_attracts_nobody():
    # S has two treatments of one compound, right between the two of A.
    vectors = directions(0, 9, 10, 20, 90, 95)
    compound = ["a1", "s", "s", "a2", "b1", "b2"]
    scores = score_mechanisms(vectors, compound, ["A", "S", "S", "A", "B", "B"], None)
    assert scores.nsc.left_out == ("S",)
    assert scores.nsc.n_scored == 4
    assert scores.nsc.accuracy == 1
    assert scores.nscb is None
    assert np.isnan(scores.drop)


def test_equally_near_neighbours_share_the_vote():
    # 45 degrees from both; copies of one profile are ties too, whatever rounding says.
    vectors = np.array([[1.0, 1.0], [1.0, 0.0], [0.0, 1.0], [0.1, 0.0], [3.0, 0.0]])
    scores = score_mechanisms(vectors, list("abcde"), ["A", "A", "B", "B", "A"], None)
    # Row 0 has rows 1, 3, 4 (A, B, A) and 2 (B) at the same angle.
    assert scores.nsc.correct[0] == pytest.approx(2 / 4)
    assert scores.nsc.correct[1] == pytest.approx(1 / 2)
    assert scores.nsc.confusion.sum() == pytest.approx(scores.nsc.n_scored)


def test_ties_do_not_depend_on_the_order_of_rows():
    rng = np.random.default_rng(0)
    vectors = rng.integers(0, 3, (30, 3)) + np.array([1, 0, 0])
    compound = [f"c{i % 10}" for i in range(30)]
    mechanism = [f"m{i % 10 % 3}" for i in range(30)]
    shuffled = rng.permutation(30)
    first = score_mechanisms(vectors, compound, mechanism, None)
    second = score_mechanisms(
        vectors[shuffled], np.array(compound)[shuffled], np.array(mechanism)[shuffled], None
    )
    assert first.nsc.accuracy == pytest.approx(second.nsc.accuracy)
    np.testing.assert_allclose(first.nsc.confusion, second.nsc.confusion)


def test_treatments_of_several_batches():
    vectors = directions(0, 1, 40, 41)
    about = (vectors, list("abcd"), ["A", "A", "B", "B"], ["w1", "w1,w2", "w1", "w3"])
    identical = score_mechanisms(*about, "identical").nscb
    assert identical.n_scored == 4
    assert identical.accuracy == 1
    shared = score_mechanisms(*about, "shared").nscb
    assert shared.left_out == ("A",)  # both were in w1
    assert shared.n_scored == 2


def test_a_treatment_without_any_neighbour_is_not_scored():
    # Row 3 shares a batch with everybody.
    vectors = directions(0, 1, 2, 3)
    batches = ["w1", "w2", "w3", "w1,w2,w3"]
    nscb = score_mechanisms(vectors, list("abcd"), ["A", "A", "A", "A"], batches, "shared").nscb
    assert nscb.is_scored.tolist() == [True, True, True, False]
    assert nscb.nearest[3] == -1


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.integers(4, 25))
def test_scores_are_those_of_a_plain_loop(seed, n):
    rng = np.random.default_rng(seed)
    vectors = rng.normal(size=(n, 4))
    compound = rng.integers(0, 6, n)
    mechanism = compound % 3
    batch = rng.integers(0, 3, n)
    texts = [[str(v) for v in values] for values in (compound, mechanism, batch)]
    try:
        scores = score_mechanisms(vectors, *texts)
    except EvaluationError:
        assert not any(
            m1 == m2 and c1 != c2
            for c1, m1 in zip(compound, mechanism, strict=True)
            for c2, m2 in zip(compound, mechanism, strict=True)
        )
        return
    assert scores.nsc.n_correct == slow_count(vectors, compound, mechanism, np.arange(n))
    assert scores.nscb.n_correct == slow_count(vectors, compound, mechanism, batch)


def slow_count(vectors, compound, mechanism, batch):
    n = len(vectors)

    def may(i, j):
        return compound[i] != compound[j] and batch[i] != batch[j]

    possible = {
        mechanism[i]
        for i in range(n)
        for j in range(n)
        if may(i, j) and mechanism[i] == mechanism[j]
    }
    right = 0
    for i in range(n):
        best, found = -2.0, None
        for j in range(n):
            if mechanism[i] in possible and mechanism[j] in possible and may(i, j):
                a, b = vectors[i], vectors[j]
                cosine = a @ b / np.sqrt((a @ a) * (b @ b))
                if cosine > best:
                    best, found = cosine, mechanism[j]
        right += found == mechanism[i]
    return right


@pytest.mark.parametrize("bad", [0.0, np.nan, np.inf])
def test_a_profile_without_direction_is_refused(bad):
    vectors = np.ones((3, 2))
    vectors[1] = bad
    with pytest.raises(EvaluationError, match="1 of 3 profiles.*row 1"):
        cosine_similarity(vectors)


def test_nothing_can_be_scored_with_one_compound_a_mechanism():
    with pytest.raises(EvaluationError, match="two compounds"):
        score_mechanisms(directions(0, 10), ["a", "b"], ["A", "B"], None)


def test_length_does_not_matter():
    similarity = cosine_similarity(np.array([[1.0, 0.0], [100.0, 0.0], [0.0, 1e-3]]))
    np.testing.assert_allclose(similarity, [[1, 1, 0], [1, 1, 0], [0, 0, 1]], atol=1e-12)
    matching = match(similarity, ~np.eye(3, dtype=bool), ["A", "A", "B"])
    assert matching.left_out == ("B",)
