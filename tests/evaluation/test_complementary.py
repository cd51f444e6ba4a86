"""Complementary retrieval through the protocols, with a captioner and a language model that follow a script."""

import json

import pytest
import torch
from torch.nn.functional import normalize

from m2c.checkpoints import load_model, load_processor
from m2c.data.benchmarks import load_benchmark
from m2c.encoding import Extractor
from m2c.evaluation import complementary
from m2c.evaluation.complementary import Complementary, ComplementaryOptions
from m2c.evaluation.evaluate import evaluate
from m2c.evaluation.protocols import PROTOCOLS, measure, rank
from m2c.evaluation.report import table
from m2c.evaluation.run import run_evaluation
from m2c.retrieval.complementary import Fusion


WRITERS = {"captioner": "any", "editor": "any", "captions": 2}


@pytest.fixture
def chat(captioner, make_chat, monkeypatch):
    chat = make_chat(lambda text: "nothing" if "blank" in text else f"a picture {len(text)} letters long")
    monkeypatch.setattr(complementary, "load_captioner", lambda *args, **kwargs: captioner)
    monkeypatch.setattr(complementary, "load_chat", lambda *args, **kwargs: chat)
    return chat


@pytest.mark.parametrize(("name", "split"), [("cirr", "val"), ("circo", "val")])
def test_figures_are_those_of_the_protocol_over_the_fused_features(request, tmp_path, options, mapping, chat, name, split):
    root = request.getfixturevalue(f"make_{name}")(tmp_path / name)
    (benchmark,) = load_benchmark(name, root, split)
    fields = options(complementary=ComplementaryOptions(**WRITERS))
    evaluation = evaluate(mapping, [benchmark], fields, say=lambda _: None)

    model, processor = load_model(mapping).eval(), load_processor(mapping)
    extractor = Extractor(model, processor, tmp_path / "other")
    helpers = Complementary(fields.complementary, name, tmp_path / "other", say=lambda _: None)
    texts = [captions[0] for captions in benchmark.queries["captions"]]
    features = helpers.encode(extractor, benchmark, [texts], "a photo of * that {text}")
    queries = 0.6 * features.edited + 0.4 * features.composed
    gallery = 0.8 * normalize(extractor.gallery(benchmark), dim=-1) + 0.2 * features.captions
    protocol = PROTOCOLS[name]
    expected = measure(benchmark, protocol, rank(benchmark, protocol, queries, gallery, is_cosine=False))
    assert evaluation.record["figures"] == expected
    wanted = {"cirr": {"R@1", "R@50", "subset R@3"}, "circo": {"mAP@5", "mAP@50", "R@5"}}[name]
    assert wanted <= evaluation.record["figures"].keys()


@torch.no_grad()
def test_what_is_written_takes_its_part(tmp_path, make_cirr, mapping, chat, captioner):
    """Against the model's own methods, for the first query."""
    (benchmark,) = load_benchmark("cirr", make_cirr(tmp_path / "cirr"), "val")
    model, processor = load_model(mapping).eval(), load_processor(mapping)
    helpers = Complementary(ComplementaryOptions(**WRITERS), "cirr", tmp_path / "cache", say=lambda _: None)
    texts = [captions[0] for captions in benchmark.queries["captions"]]
    extractor = Extractor(model, processor, tmp_path / "cache")
    features = helpers.encode(extractor, benchmark, [texts], "a photo of * that {text}")

    def unit(values: list[str]) -> torch.Tensor:
        return normalize(model.get_text_features(**processor(text=values, return_tensors="pt")).pooler_output, dim=-1)

    row = benchmark.positions()[benchmark.queries["reference_id"][0]]
    edits = helpers.writer.edits(helpers.writer.captions(None, [extractor.digests.of_gallery(benchmark)[row]]), texts[:1])
    assert edits.added != [""]
    asked = f"{texts[0].rstrip(' .')}. And the photo should have {edits.added[0]}."
    inputs = processor(images=[benchmark.picture(row)], text=[asked], return_tensors="pt")
    composed = normalize(model.get_composed_features(**inputs).pooler_output, dim=-1)
    assert torch.allclose(features.composed[:1], composed, atol=1e-4)
    assert torch.allclose(features.edited[0], unit(edits.edited[0]).mean(dim=0), atol=1e-4)
    assert torch.equal(features.reference[0], features.images[row])


def test_the_record_says_who_wrote_how_it_was_weighed_and_what_it_took(tmp_path, options, make_cirr, mapping, chat, captioner):
    benchmarks = load_benchmark("cirr", make_cirr(tmp_path / "cirr"), "val")
    fields = options(complementary=ComplementaryOptions(**WRITERS, weights="0.5,0.3,0", form="joined"))
    run_evaluation(mapping, benchmarks, output=tmp_path / "out", options=fields, say=lambda _: None)
    record = json.loads((tmp_path / "out" / "record.json").read_text())["query"]["complementary"]
    assert record["captioner"] == captioner.identity
    assert record["editor"]["model"] == chat.identity["model"]
    assert record["weights"] == {"alpha": 0.5, "beta": 0.3, "gamma": 0.0, "caption_feature": "mean"}
    assert (record["captions"], record["form"]) == (2, "joined")
    assert record["parts"]["cirr"]["images_captioned"] == 5, "without weight for them, only references are captioned"
    assert record["parts"]["cirr"]["seconds"].keys() == {"captions", "edits", "features"}
    assert {path.name for path in (tmp_path / "out").iterdir()} >= {"cirr-val-recall.json", "cirr-val-recall_subset.json"}


def test_texts_are_written_once_for_every_model_and_run(tmp_path, options, make_cirr, mapping, injecting, chat, captioner):
    benchmarks = load_benchmark("cirr", make_cirr(tmp_path / "cirr"), "val")
    fields = options(complementary=ComplementaryOptions(**WRITERS))
    first = evaluate(mapping, benchmarks, fields, say=lambda _: None)
    captioned, asked = len(captioner.asked), len(chat.asked)
    assert captioned == 2 * 54
    evaluate(injecting, benchmarks, fields, say=lambda _: None)
    again = evaluate(mapping, benchmarks, fields, say=lambda _: None)
    assert (len(captioner.asked), len(chat.asked)) == (captioned, asked)
    assert again.record["figures"] == first.record["figures"]


def test_tuned_weights_are_the_best_of_these_queries(tmp_path, options, make_cirr, mapping, chat, monkeypatch):
    benchmarks = load_benchmark("cirr", make_cirr(tmp_path / "cirr"), "val")
    tried = [Fusion(1, 0, 0), Fusion(0, 1, 0), Fusion(0, 0, 0), Fusion(0.5, 0.5, 0.5)]
    monkeypatch.setattr("m2c.retrieval.complementary.tuning._grid", lambda has_captions: tried)

    def figure(**fields) -> tuple[float, dict]:
        fields = options(complementary=ComplementaryOptions(**WRITERS, **fields))
        record = evaluate(mapping, benchmarks, fields, say=lambda _: None).record
        return record["figures"]["R@1"], record["query"]["complementary"]

    best = figure(tune=True)[1]["tuned_on_these_queries"]
    values = [figure(weights=f"{one.alpha},{one.beta},{one.gamma or 1e-12}")[0] for one in tried]
    assert best["figure"] == "R@1"
    assert best["value"] == max(values)
    evaluation = evaluate(mapping, benchmarks, options(complementary=ComplementaryOptions(**WRITERS, tune=True)))
    assert f"--caption_feature mean (R@1 {best['value']:.2f})" in table(evaluation.record)


def test_options_that_could_not_act_are_refused(tmp_path, options, make_cirr, make_circo, mapping, chat):
    benchmarks = load_benchmark("cirr", make_cirr(tmp_path / "cirr"), "val")
    with pytest.raises(ValueError, match="needs composed queries"):
        evaluate(mapping, benchmarks, options(query="text", complementary=ComplementaryOptions(**WRITERS)))
    with pytest.raises(ValueError, match="no mixture"):
        evaluate(mapping, benchmarks, options(complementary=ComplementaryOptions(**WRITERS, weights="0.9,0.9,0")))
    secret = load_benchmark("circo", make_circo(tmp_path / "circo"), "test")
    with pytest.raises(ValueError, match="which the split test keeps secret"):
        evaluate(mapping, secret, options(complementary=ComplementaryOptions(**WRITERS, tune=True)))


def test_another_form_asks_the_editor_anew_and_the_captioner_not_at_all(tmp_path, options, make_cirr, mapping, chat, captioner):
    benchmarks = load_benchmark("cirr", make_cirr(tmp_path / "cirr"), "val")
    for form in ("each", "joined"):
        asked = len(chat.asked)
        evaluate(mapping, benchmarks, options(complementary=ComplementaryOptions(**WRITERS, form=form)), say=lambda _: None)
        assert len(chat.asked) > asked
    assert len(captioner.asked) == 2 * 54
