import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from m2c.evaluation.submissions import score_circo, validate_circo


# What is put in the place of query 2's ids, and what is to be said of it.
REJECTED = {
    "too few": (lambda ids: ids[:10], "lists 10 integer ids instead of exactly 50"),
    "too many": (lambda ids: [*ids, next(image for image in range(1000, 1560, 7) if image not in ids)], "lists 51 integer ids"),
    "duplicate": (lambda ids: [ids[1], *ids[1:]], "more than once"),
    "unknown": (lambda ids: [5, *ids[1:]], "lists 5, not in the gallery"),
    "text": (lambda ids: [str(ids[0]), *ids[1:]], "its entries must be integer ids"),
    "fraction": (lambda ids: [1000.0, *ids[1:]], "lists 1000.0; its entries must be integer ids"),
    "truth": (lambda ids: [True, *ids[1:]], "lists True; its entries must be integer ids"),
    "no list": (lambda ids: {"ids": ids}, "instead of a list of integer ids"),
}


def test_a_valid_file_passes_even_with_the_reference(circo_queries, circo_ids, make_circo):
    predictions = make_circo()
    reference = circo_queries[2]["reference_img_id"]
    predictions["2"] = [reference, *(image for image in predictions["2"] if image != reference)][:50]
    assert validate_circo(predictions, circo_queries, circo_ids) == []
    assert validate_circo(predictions, circo_queries) == []


@pytest.mark.parametrize("fault", REJECTED)
def test_a_wrong_ranking_is_rejected_with_its_query(circo_queries, circo_ids, make_circo, fault):
    predictions, (change, reason) = make_circo(), REJECTED[fault]
    predictions["2"] = change(predictions["2"])
    problems = validate_circo(predictions, circo_queries, circo_ids)
    assert len(problems) == 1 and problems[0].startswith("query 2: ") and reason in problems[0], problems


def test_ids_of_queries_are_exactly_those_of_the_annotations(circo_queries, make_circo):
    predictions = make_circo()
    predictions["5"] = predictions.pop("0")
    assert validate_circo(predictions, circo_queries) == [
        "query 0: is missing",
        "query '5': is unknown; the ids must be exactly 0 to 4",
    ]
    assert validate_circo(None, circo_queries) == ["the file holds None instead of a JSON object of queries"]


def test_without_a_gallery_unknown_ids_pass_and_are_scored(circo_queries, make_circo):
    predictions = make_circo()
    predictions["2"][0] = 10**30
    assert validate_circo(predictions, circo_queries) == []
    assert score_circo(predictions, circo_queries)["mAP@5"]["queries"] == 5


def average_precision(ranking: list[int], answers: list[int], k: int) -> float:
    """Equation by equation: the precision at every rank of an answer, over the most answers that k ranks can hold."""
    total = 0.0
    for rank in range(1, k + 1):
        if ranking[rank - 1] in answers:
            total += sum(image in answers for image in ranking[:rank]) / rank
    return total / min(len(answers), k)


@settings(max_examples=30)
@given(st.integers(0, 10**6))
def test_figures_agree_with_the_definition(circo_queries, make_circo, seed):
    predictions = make_circo(seed)
    expected = {}

    def expect(name: str, values: list[float]) -> None:
        expected[name] = {"percent": pytest.approx(100 * sum(values) / len(values)), "queries": len(values)}

    for k in (5, 10, 25, 50):
        rankings = [predictions[str(query["id"])] for query in circo_queries]
        expect(f"mAP@{k}", [average_precision(r, q["gt_img_ids"], k) for r, q in zip(rankings, circo_queries, strict=True)])
        expect(f"R@{k}", [q["target_img_id"] in r[:k] for r, q in zip(rankings, circo_queries, strict=True)])
    for aspect in ("viewpoint", "addition", "negation"):
        carriers = [query for query in circo_queries if aspect in query["semantic_aspects"]]
        values = [average_precision(predictions[str(query["id"])], query["gt_img_ids"], 10) for query in carriers]
        expect(f"mAP@10 {aspect}", values)
    assert score_circo(predictions, circo_queries) == expected


def test_order_in_the_file_does_not_matter(circo_queries, make_circo):
    predictions = make_circo()
    backwards = dict(reversed(predictions.items()))
    assert score_circo(backwards, circo_queries) == score_circo(predictions, circo_queries)
