from m2c.retrieval.complementary import with_added


def test_what_is_new_follows_the_modification():
    texts = with_added(["is red.", "has a dog", "", "stays"], ["a red hat", "a dog", "a cat", ""], "cirr")
    assert texts == ["is red. And the photo should have a red hat.", "has a dog. And the photo should have a dog.", "", "stays"]


def test_braces_and_placeholders_in_texts_are_texts():
    assert with_added(["is {added} *"], ["{text} $1"], "cirr") == ["is {added} *. And the photo should have {text} $1."]


def test_scenes_are_asked_in_words_that_its_tokenizer_knows(tokenizer):
    (text,) = with_added(["make the circle blue"], ["a blue circle"], "scenes")
    assert tokenizer.unk_token_id not in tokenizer(text).input_ids
