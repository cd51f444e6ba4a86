import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from m2c.evaluation.submissions import score_cirr, validate_cirr


REFERENCE = "dev-8-0-img0"  # of query 102
TARGET = "dev-10-2-img0"

# What is put in the place of query 102's names, and what is to be said of it.
REJECTED = {
    "too few": (lambda names: names[:49], "lists 49 names instead of exactly 50"),
    "too many": (lambda names: [*names, "dev-11-3-img1"], "lists 51 names instead of exactly 50"),
    "duplicate": (lambda names: [names[1], *names[1:]], "more than once"),
    "unknown": (lambda names: ["dev-999-0-img0", *names[1:]], "lists 'dev-999-0-img0', not in the gallery"),
    "suffix": (lambda names: [f"{name}.png" for name in names], 'without ".png"'),
    "path": (lambda names: [f"./dev/{names[0]}", *names[1:]], "without folder"),
    "reference": (lambda names: [REFERENCE, *(name for name in names[1:] if name != REFERENCE)], "lists its own reference"),
    "number": (lambda names: [17, *names[1:]], "lists 17; its entries must be names"),
    "list of lists": (lambda names: [names], "its entries must be names"),
    "no list": (lambda names: "dev-1-1-img1", "holds 'dev-1-1-img1' instead of a list of names"),
    "nothing": (lambda names: None, "holds None instead of a list of names"),
}


@pytest.mark.parametrize("metric", ["recall", "recall_subset"])
def test_valid_files_pass(cirr_queries, cirr_names, make_cirr, metric):
    assert validate_cirr(make_cirr(metric), cirr_queries, cirr_names) == []
    assert validate_cirr(make_cirr(metric), cirr_queries) == []


@pytest.mark.parametrize("fault", REJECTED)
def test_a_wrong_ranking_is_rejected_with_its_query(cirr_queries, cirr_names, make_cirr, fault):
    predictions, (change, reason) = make_cirr(), REJECTED[fault]
    predictions["102"] = change(predictions["102"])
    problems = validate_cirr(predictions, cirr_queries, cirr_names)
    assert any(problem.startswith("query 102: ") and reason in problem for problem in problems), problems
    assert all(problem.startswith("query 102: ") for problem in problems)


def test_one_fault_is_one_problem(cirr_queries, cirr_names, make_cirr):
    """A file's name is not unknown besides, and 50 unknown names make one sentence."""
    predictions = make_cirr()
    predictions["102"] = [f"{name}.png" for name in predictions["102"]]
    predictions["103"] = [f"cat-{number}" for number in range(50)]
    first, second = validate_cirr(predictions, cirr_queries, cirr_names)
    assert first.startswith("query 102: ") and "and 47 more" in first
    assert second == "query 103: lists 'cat-0', 'cat-1', 'cat-2' and 47 more, not in the gallery"


def test_all_problems_are_found(cirr_queries, cirr_names, make_cirr):
    predictions = make_cirr()
    predictions["102"] = [REFERENCE, "dev-999-0-img0", "dev-999-0-img0", "dev-1-1-img1.PNG"]
    del predictions["100"], predictions["version"]
    predictions["7"] = []
    problems = validate_cirr(predictions, cirr_queries, cirr_names)
    reasons = ("version", "100: is missing", "'7': is unknown", "4 names", "once", ".png", "reference", "gallery")
    assert len(problems) == len(reasons)
    assert all(reason in problem for reason, problem in zip(reasons, problems, strict=True)), problems


def test_without_a_gallery_unknown_names_pass(cirr_queries, make_cirr):
    predictions = make_cirr()
    predictions["102"][0] = "dev-999-0-img0"
    assert validate_cirr(predictions, cirr_queries) == []


@pytest.mark.parametrize(
    ("key", "value", "reason"),
    [
        ("version", None, 'the entry "version" is missing; it must be "rc2"'),
        ("version", "rc1", 'the entry "version" is \'rc1\'; it must be "rc2"'),
        ("metric", None, 'the entry "metric" is missing; it must be "recall" or "recall_subset"'),
        ("metric", "mAP", 'the entry "metric" is \'mAP\'; it must be "recall" or "recall_subset"'),
        ("metric", ["recall"], 'the entry "metric" is [\'recall\']; it must be "recall" or "recall_subset"'),
    ],
)
def test_header(cirr_queries, cirr_names, make_cirr, key, value, reason):
    predictions = make_cirr()
    predictions.pop(key)
    if value is not None:
        predictions[key] = value
    assert validate_cirr(predictions, cirr_queries, cirr_names) == [reason]


def test_subset_rankings_stay_within_the_subset(cirr_queries, cirr_names, make_cirr):
    predictions = make_cirr("recall_subset")
    predictions["101"] = ["dev-60-0-img0", *predictions["101"][1:]]
    predictions["102"] = [REFERENCE, TARGET]
    assert validate_cirr(predictions, cirr_queries, cirr_names) == [
        "query 101: lists 'dev-60-0-img0', not in the query's img_set",
        "query 102: lists 2 names instead of exactly 3",
        f"query 102: lists its own reference '{REFERENCE}'",
    ]


def test_a_file_of_another_split_is_recognised(cirr_queries, cirr_names, make_cirr):
    predictions = make_cirr()
    moved = {key if key in ("version", "metric") else f"9{key}": value for key, value in predictions.items()}
    problems = validate_cirr(moved, cirr_queries, cirr_names)
    assert "another split" in problems[0] and len(problems) == 11
    assert validate_cirr([], cirr_queries) == ["the file holds [] instead of a JSON object of queries"]


@settings(max_examples=30)
@given(st.integers(0, 10**6), st.sampled_from(["recall", "recall_subset"]))
def test_figures_agree_with_the_definition(cirr_queries, make_cirr, seed, metric):
    predictions = make_cirr(metric, seed)
    prefix, cuts = ("R@", (1, 5, 10, 50)) if metric == "recall" else ("subset R@", (1, 2, 3))
    expected = {}
    for k in cuts:
        hits = 0
        for query in cirr_queries:
            for name in predictions[str(query["pairid"])][:k]:
                hits += name == query["target_hard"]
        expected[f"{prefix}{k}"] = {"percent": pytest.approx(100 * hits / 5), "queries": 5}
    assert score_cirr(predictions, cirr_queries) == expected


def test_figures_by_hand(cirr_queries, make_cirr):
    predictions = make_cirr("recall_subset")
    for place, query in enumerate(cirr_queries):
        others = [name for name in query["img_set"]["members"] if name not in (query["reference"], query["target_hard"])]
        ranking = [*others[:place], query["target_hard"], *others[place:]]
        predictions[str(query["pairid"])] = ranking[:3]
    figures = score_cirr(predictions, cirr_queries)
    assert [figures[f"subset R@{k}"]["percent"] for k in (1, 2, 3)] == pytest.approx([20, 40, 60])
