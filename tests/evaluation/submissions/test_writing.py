import json

import pytest

from m2c.evaluation.submissions import write_circo_submission, write_cirr_submission


@pytest.mark.parametrize("metric", ["recall", "recall_subset"])
def test_cirr_in_the_form_of_its_server(tmp_path, cirr_queries, cirr_names, make_cirr, metric):
    predictions = make_cirr(metric)
    rankings = {key: value for key, value in predictions.items() if key not in ("version", "metric")}
    write_cirr_submission(tmp_path / "out.json", metric, rankings, cirr_queries, cirr_names)
    written = json.loads((tmp_path / "out.json").read_text())
    assert written == predictions and list(written)[:2] == ["version", "metric"]


def test_circo_in_the_form_of_its_server(tmp_path, circo_queries, circo_ids, make_circo):
    write_circo_submission(tmp_path / "out.json", make_circo(), circo_queries, circo_ids)
    assert json.loads((tmp_path / "out.json").read_text()) == make_circo()


def test_nothing_is_written_that_a_server_would_reject(tmp_path, cirr_queries, circo_queries, make_cirr, make_circo):
    rankings = {query: ranking[:49] for query, ranking in make_circo().items()}
    with pytest.raises(ValueError, match=r"out\.json was not written[^\n]*\nquery 0: lists 49 integer ids"):
        write_circo_submission(tmp_path / "out.json", rankings, circo_queries)
    rankings = make_cirr("recall_subset")
    with pytest.raises(ValueError, match="query 100: lists 3 names instead of exactly 50"):
        write_cirr_submission(tmp_path / "out.json", "recall", {**rankings, "metric": "recall"}, cirr_queries)
    assert list(tmp_path.iterdir()) == []


def test_twenty_problems_are_listed_and_the_rest_counted(tmp_path, circo_queries):
    queries = [{**circo_queries[0], "id": number} for number in range(30)]
    with pytest.raises(ValueError) as error:
        write_circo_submission(tmp_path / "out.json", {str(number): [] for number in range(30)}, queries)
    lines = str(error.value).splitlines()
    assert len(lines) == 22 and lines[-1] == "... and 10 more"
