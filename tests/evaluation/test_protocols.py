"""The figures of each benchmark, by hand and from their definitions."""

from dataclasses import replace

import pytest
import torch
from datasets import Dataset
from hypothesis import given, settings
from hypothesis import strategies as st

from m2c.data.benchmarks import QUERY_FEATURES, make_query
from m2c.evaluation.evaluate import evaluate
from m2c.evaluation.protocols import PROTOCOLS, Protocol, mean_of_parts, measure, own_protocol, protocol_of, rank
from m2c.evaluation.scenes_benchmark import ScenesBenchmark


def figures(benchmark, queries, gallery, protocol: Protocol | None = None) -> dict[str, float]:
    protocol = protocol or PROTOCOLS[benchmark.name]
    return measure(benchmark, protocol, rank(benchmark, protocol, torch.tensor(queries), gallery))


def test_cirr_leaves_the_reference_out_and_ranks_subsets_apart(make_benchmark):
    """One-hot images: a query's numbers are its scores of the images a to g."""
    queries = [
        make_query("0", "a", ["x"], "c", subset_ids=["b", "c", "d", "e", "f"]),
        make_query("1", "b", ["y"], "g", subset_ids=["a", "c", "d", "e", "g"]),
    ]
    benchmark = make_benchmark("abcdefg", queries, name="cirr")
    # a is the reference, b comes before c. Of the second, b is the reference, and six images remain: c d e a f before g.
    scores = [[9.0, 8, 7, 6, 5, 4, 3], [5, 9, 8, 7, 6, 4, 3]]
    found = figures(benchmark, scores, torch.eye(7))
    # In its subset g is the last of five.
    assert found == {
        "R@1": 0,
        "R@5": 50,
        "R@10": 100,
        "R@50": 100,
        "subset R@1": 0,
        "subset R@2": 50,
        "subset R@3": 50,
    }


def test_the_left_out_reference_is_no_answer_even_in_a_gallery_smaller_than_k(make_benchmark):
    benchmark = make_benchmark("abc", [make_query("0", "a", ["x"], "a", subset_ids=["b", "c"])], name="cirr")
    assert set(figures(benchmark, [[3.0, 2, 1]], torch.eye(3)).values()) == {0}


def test_circo_keeps_the_reference_and_counts_every_answer(make_benchmark):
    queries = [
        make_query("0", "a", ["x"], "b", answer_ids=["b", "d"], aspects=["addition", "viewpoint"]),
        make_query("1", "b", ["y"], "c", answer_ids=["c"], aspects=["viewpoint"]),
        make_query("2", "c", ["z"], "c", answer_ids=["c", "a"], aspects=["negation"]),
    ]
    benchmark = make_benchmark("abcdefg", queries, name="circo")
    scores = [[9.0, 8, 7, 6, 5, 4, 3], [9, 8, 1, 7, 6, 5, 4], [8, 2, 9, 3, 7, 6, 5]]
    found = figures(benchmark, scores, torch.eye(7))
    # Answers at ranks 2 and 4; at rank 7, so beyond 5; at 1, where the reference itself is the answer, and 2.
    first, second, third = (1 / 2 + 2 / 4) / 2, 1 / 7, 1.0
    mean = 100 * (first + second + third) / 3
    assert found == {
        "R@5": pytest.approx(200 / 3, abs=1e-4),
        "R@10": 100,
        "R@25": 100,
        "R@50": 100,
        "mAP@5": pytest.approx(100 * (first + third) / 3, abs=1e-4),
        "mAP@10": pytest.approx(mean, abs=1e-4),
        "mAP@25": pytest.approx(mean, abs=1e-4),
        "mAP@50": pytest.approx(mean, abs=1e-4),
        "mAP@10 addition": 50,
        "mAP@10 negation": 100,
        "mAP@10 viewpoint": pytest.approx(100 * (first + second) / 2, abs=1e-4),
    }


def test_more_answers_than_places_are_divided_by_the_places(make_benchmark):
    names = [f"i{number}" for number in range(20)]
    benchmark = make_benchmark(names, [make_query("0", "i0", ["x"], "i1", answer_ids=names[1:13])], name="circo")
    found = figures(benchmark, [[float(20 - number) for number in range(20)]], torch.eye(20))
    # The reference comes first, then twelve answers: precision (r - 1) / r at rank r.
    for k, hits in ((5, 4), (10, 9)):
        assert found[f"mAP@{k}"] == pytest.approx(100 * sum((r - 1) / r for r in range(2, hits + 2)) / k, abs=1e-4)
    assert found["mAP@25"] == pytest.approx(100 * sum((r - 1) / r for r in range(2, 14)) / 12, abs=1e-4)


def test_fashioniq_keeps_the_reference_and_averages_categories_not_queries(make_benchmark):
    names = [f"i{number}" for number in range(12)]
    scores = [float(12 - number) for number in range(12)]
    # The target at rank 10 counts, that at rank 11 does not, although without the reference (at rank 1) it would.
    dress = make_benchmark(names, [make_query("0", "i0", ["x", "y"], "i9")], name="fashioniq", category="dress")
    queries = [make_query(str(n), "i0", ["x", "y"], target) for n, target in enumerate(("i10", "i11", "i2"))]
    shirt = make_benchmark(names, queries, name="fashioniq", category="shirt")
    parts = [figures(dress, [scores], torch.eye(12)), figures(shirt, [scores] * 3, torch.eye(12))]
    assert parts == [{"R@10": 100, "R@50": 100}, {"R@10": pytest.approx(100 / 3, abs=1e-4), "R@50": 100}]
    assert mean_of_parts(parts) == {"R@10": pytest.approx(200 / 3, abs=1e-4), "R@50": 100}


def test_genecis_ranks_each_query_in_its_own_gallery_only(make_benchmark):
    queries = [
        make_query("0", "a", ["x"], "c", subset_ids=["c", "d", "e"]),
        make_query("1", "a", ["y"], "e", subset_ids=["e", "b", "c", "d"]),
    ]
    benchmark = make_benchmark("abcdef", queries, name="genecis", category="focus_object")
    # a, b and f beat every image of the first gallery, and in the second b and c beat e.
    scores = [[9.0, 8, 6, 5, 4, 9], [9, 8, 7, 5, 6, 9]]
    assert figures(benchmark, scores, torch.eye(6)) == {"subset R@1": 50, "subset R@2": 50, "subset R@3": 100}


def test_a_target_that_is_listed_first_gains_nothing_from_ties(make_benchmark):
    """Of 15 equals each is found first by one query of 15, wherever the target stands in list and gallery."""
    names = [f"i{number:02}" for number in range(16)]
    orders = [[target, *(name for name in names[1:] if name != target)] for target in names[1:]]
    queries = [make_query(str(n), "i00", ["x"], order[0], subset_ids=order) for n, order in enumerate(orders)]
    benchmark = make_benchmark(names, queries, name="genecis")
    found = figures(benchmark, [[1.0]] * 15, torch.ones(16, 1))
    assert found == {f"subset R@{k}": pytest.approx(100 * k / 15, abs=1e-4) for k in (1, 2, 3)}


@pytest.mark.parametrize("name", list(PROTOCOLS))
def test_secret_targets_give_rankings_and_no_figures(make_benchmark, name):
    queries = [make_query("0", "a", ["x"], None, subset_ids=["b", "c"]), make_query("1", "b", ["x"], None, subset_ids=["a"])]
    benchmark = make_benchmark("abcd", queries, name=name)
    rankings = rank(benchmark, PROTOCOLS[name], torch.eye(4)[:2], torch.eye(4))
    assert measure(benchmark, PROTOCOLS[name], rankings) == {}
    if PROTOCOLS[name].subset_recall:
        assert {tuple(sorted(row)) for row in rankings.subsets.tolist()} == {(1, 2), (-1, 0)}
    assert (rankings.gallery is None) == (name == "genecis")


def test_the_mean_is_of_what_all_parts_have():
    assert mean_of_parts([{"R@1": 10.0, "R@5": 3.0}, {"R@1": 20.0}]) == {"R@1": 15.0}
    assert mean_of_parts([{"R@1": 10.0}, {}]) == {}
    assert mean_of_parts([{}, {"R@1": 10.0}]) == {}


def test_own_benchmarks_are_measured_by_what_their_columns_allow(make_benchmark):
    plain = make_query("0", "a", ["x"], "b")
    assert own_protocol(make_benchmark(queries=[plain])) == Protocol((1, 5, 10, 50), excludes_reference=True)
    full = {"subset_ids": ["b", "c"], "answer_ids": ["b"], "aspects": ["zoom"]}
    protocol = own_protocol(make_benchmark(queries=[{**plain, **full}]))
    assert protocol == Protocol((1, 5, 10, 50), (1, 2, 3), (5, 10, 25, 50), 10, True)
    # One query without them, and neither subsets nor answers can be measured over all.
    protocol = own_protocol(make_benchmark(queries=[{**plain, **full}, {**plain, "id": "1"}]))
    assert protocol == Protocol((1, 5, 10, 50), excludes_reference=True)


@pytest.mark.parametrize(
    ("name", "missing"), [("cirr", "subset_ids"), ("circo", "answer_ids"), ("genecis", "subset_ids"), ("scenes", "subset_ids")]
)
def test_a_benchmark_that_only_calls_itself_like_a_known_one_is_refused(make_benchmark, name, missing):
    """A folder of one's own may be called "circo"; without answers its figures would be none of CIRCO's."""
    with pytest.raises(ValueError, match=rf"'{name}'.*{missing}"):
        protocol_of(make_benchmark(name=name))
    assert protocol_of(make_benchmark(name="mine")) == own_protocol(make_benchmark())


def test_secret_targets_need_no_answers(make_benchmark):
    queries = [make_query("0", "a", ["x"], None)]
    assert protocol_of(make_benchmark(queries=queries, name="circo")) == PROTOCOLS["circo"]


# Few different scores, so that most rankings hold ties.
@settings(max_examples=60)
@given(st.data())
def test_all_figures_against_brute_force(make_benchmark, data):
    size, count = data.draw(st.integers(4, 9)), data.draw(st.integers(1, 4))
    names, places = [f"i{number}" for number in range(size)], list(range(size))
    choose = st.sets(st.sampled_from(places), min_size=1)
    queries, scores = [], []
    for number in range(count):
        reference, target = data.draw(st.permutations(places))[:2]
        answers = [target, *sorted(data.draw(choose) - {target, reference})]
        subset = [target, *sorted(data.draw(choose) - {target, reference})]
        columns = {"subset_ids": [names[i] for i in subset], "answer_ids": [names[i] for i in answers]}
        aspects = sorted(data.draw(st.sets(st.sampled_from(["zoom", "count"]))))
        queries.append(make_query(str(number), names[reference], ["x"], names[target], aspects=aspects, **columns))
        scores.append(data.draw(st.lists(st.sampled_from([0.0, 1.0, 2.0]), min_size=size, max_size=size)))
    protocol = Protocol((1, 3), (1, 2), (2, 5), 3, data.draw(st.booleans()))
    benchmark = make_benchmark(names, queries)
    found = figures(benchmark, scores, torch.eye(size), protocol)

    order = torch.randperm(size, generator=torch.Generator().manual_seed(0)).tolist()  # of equals
    sums, counts = {}, {}

    def note(name: str, value: float) -> None:
        sums[name], counts[name] = sums.get(name, 0) + 100 * value, counts.get(name, 0) + 1

    for query, row in zip(queries, scores):
        ranking = [names[i] for i in sorted(places, key=lambda i: (-row[i], order.index(i)))]
        within = [name for name in ranking if name in query["subset_ids"]]
        if protocol.excludes_reference:
            ranking.remove(query["reference_id"])
        for k in protocol.recall:
            note(f"R@{k}", query["target_id"] in ranking[:k])
        for k in protocol.subset_recall:
            note(f"subset R@{k}", query["target_id"] in within[:k])
        for title, k in (("mAP@2", 2), ("mAP@5", 5), *((f"mAP@3 {aspect}", 3) for aspect in query["aspects"])):
            hits = [place for place, name in enumerate(ranking[:k], start=1) if name in query["answer_ids"]]
            note(title, sum(n / place for n, place in enumerate(hits, start=1)) / min(len(query["answer_ids"]), k))
    assert found == {name: pytest.approx(sums[name] / counts[name], abs=1e-4) for name in sums}


def test_scenes_as_cirr(scenes, injecting, options):
    """Recall over the gallery without the reference, and over subsets, equal those of the quickstart's table."""
    evaluation = evaluate(injecting, [replace(scenes, name="cirr")], options(prompt="a photo of * that {text}"), print_nothing)
    found = evaluation.record["figures"]
    ours = evaluate(injecting, [scenes], options(), print_nothing).record["figures"]
    assert list(found) == ["R@1", "R@5", "R@10", "R@50", "subset R@1", "subset R@2", "subset R@3"]
    shared = ("R@1", "R@5", "R@10", "subset R@1")
    assert {name: found[name] for name in shared} == {name: ours[name] for name in shared}
    assert found["R@1"] <= found["R@5"] <= found["R@10"] <= found["R@50"] <= 100
    assert not (evaluation.parts[0][1].gallery == torch.tensor(references(scenes))[:, None]).any()


def test_scenes_as_circo(scenes, injecting, options):
    """With more answers than one, aspects, and the reference left in: checked against loops over the same features."""
    queries = [
        {**query, "answer_ids": [query["target_id"], query["subset_ids"][number % 5], query["reference_id"]]}
        for number, query in enumerate(scenes.queries)
    ]
    for number, query in enumerate(queries):
        query["answer_ids"] = list(dict.fromkeys(query["answer_ids"]))
        query["aspects"] = ["even"] if number % 2 == 0 else ["odd", "third"][: 1 + number % 3]
    dressed = replace(scenes, name="circo", queries=Dataset.from_list(queries, features=QUERY_FEATURES))
    record, ((_, rankings),) = vars(evaluate(injecting, [dressed], options(), print_nothing)).values()
    precisions = []
    for query, ranking in zip(queries, rankings.gallery.tolist()):
        ranked = [scenes.gallery["id"][position] for position in ranking]
        assert len(set(ranked)) == 50
        hits = [place for place, name in enumerate(ranked[:10], start=1) if name in query["answer_ids"]]
        precisions.append(100 * sum(n / place for n, place in enumerate(hits, start=1)) / len(query["answer_ids"]))
    found = record["figures"]
    assert found["mAP@10"] == pytest.approx(sum(precisions) / 20, abs=1e-4)
    assert found["mAP@10 even"] == pytest.approx(sum(precisions[::2]) / 10, abs=1e-4)
    assert found["mAP@10 odd"] == pytest.approx(sum(precisions[1::2]) / 10, abs=1e-4)
    assert (rankings.gallery == torch.tensor(references(scenes))[:, None]).any(), "the reference is not left out"


def test_scenes_as_fashioniq(scenes, injecting, options):
    """Two captions joined are the text that they were cut from, and give its figures exactly."""
    split = [{**query, "captions": query["captions"][0].split(" and ", 1)} for query in scenes.queries]
    assert any(len(query["captions"]) == 2 for query in split)
    cut = replace(scenes, name="fashioniq", queries=Dataset.from_list(split, features=QUERY_FEATURES), category="dress")
    whole = replace(scenes, name="fashioniq", category="dress")
    forward = options(joining="first-second")
    expected = evaluate(injecting, [whole], options(), print_nothing)
    found = evaluate(injecting, [cut], forward, print_nothing)
    assert found.record["figures"] == expected.record["figures"]
    assert torch.equal(found.parts[0][1].gallery, expected.parts[0][1].gallery)
    backward = evaluate(injecting, [cut], options(joining="second-first"), print_nothing)
    assert not torch.equal(backward.parts[0][1].gallery, expected.parts[0][1].gallery)
    assert set(found.record["figures"]) == {"R@10", "R@50"}


def test_the_table_of_the_quickstart_is_measured_by_the_same_code(scenes, injecting, options):
    from m2c.checkpoints import load_model, load_processor
    from m2c.data.scenes import composed_retrieval

    model, processor = load_model(injecting).eval(), load_processor(injecting)
    quickstart = ScenesBenchmark.encode(composed_retrieval(20), model, processor)
    expected = quickstart.score(quickstart.queries(model, processor))
    found = evaluate(injecting, [scenes], options(), print_nothing).record["figures"]
    assert {name: round(found[name], 2) for name in expected} == expected


def references(benchmark) -> list[int]:
    place = benchmark.positions()
    return [place[name] for name in benchmark.queries["reference_id"]]


def print_nothing(line: str) -> None:
    pass
