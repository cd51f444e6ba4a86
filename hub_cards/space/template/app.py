"""The page of this Space. `python app.py` runs it on your own machine."""

from pathlib import Path

import gradio as gr
from search import Searcher, load_searcher, read_settings


FOLDER = Path(__file__).resolve().parent
GALLERY = FOLDER / "gallery"
SHOWN = 12
TITLE = "Search with a picture and words"
HELP = "Give a reference picture and say what should change: you get pictures that look like it *after* that change."
CLICK = "Click one to make it the reference."
# Those of the reader's own system: nothing is fetched from elsewhere.
# On a telephone four columns are wider than the screen; and a small picture is to be seen too.
CSS = """
@media (max-width: 640px) { .grid-container { grid-template-columns: repeat(2, 1fr) !important; } }
.image-frame img { width: 100%; height: 100%; object-fit: contain; }
"""
THEME = gr.themes.Default(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"])


def build(searcher: Searcher, examples: list[dict]) -> gr.Blocks:
    """The page.

    Args:
        searcher: answers queries.
        examples: queries to begin with, as in `settings.json`.
    """
    # Of pictures that were deleted from the gallery no example is left.
    rows = [[str(GALLERY / example["reference"]), example["modification"]] for example in examples]
    rows = [row for row in rows if Path(row[0]).is_file()]

    def search(reference: dict | None, words: str | None):
        try:
            answers = searcher(reference and reference["path"], words or "", SHOWN)
        except ValueError as error:
            return f"⚠️ **{error}**", gr.skip()
        note = f"The best {len(answers)} of {len(searcher.pictures)} pictures. {CLICK}"
        return note, gr.Gallery([(answer.picture, f"{answer.score:.3f}") for answer in answers], selected_index=None)

    def pick(chosen: gr.SelectData) -> str:
        return chosen.value["image"]["path"]

    with gr.Blocks(title=TITLE, analytics_enabled=False) as page:
        gr.Markdown(f"# {TITLE}\n{HELP}")
        with gr.Row():
            with gr.Column(scale=2, min_width=300):
                reference = gr.Image(label="Reference", sources=["upload", "clipboard"], height=260, buttons=[])
                words = gr.Textbox(label="What should change?", placeholder="Leave empty for more like this picture")
                button = gr.Button("Search", variant="primary")
                begin = gr.Examples(rows, [reference, words], cache_examples=False) if rows else None
            with gr.Column(scale=5, min_width=300):
                note = gr.Markdown(f"The gallery has {len(searcher.pictures)} pictures. {CLICK}")
                results = gr.Gallery(
                    searcher.pictures[:SHOWN],
                    show_label=False,
                    columns=4,
                    height="75vh",
                    object_fit="contain",
                    allow_preview=False,
                    interactive=False,
                    buttons=[],
                )
        # Not preprocessed: Gradio would open the picture, and fail without a word where it is broken. The search says so.
        ask = {"fn": search, "inputs": [reference, words], "outputs": [note, results], "preprocess": False}
        gr.on([button.click, words.submit], **ask, api_name="search")
        if begin:
            begin.load_input_event.then(**ask, api_visibility="private")
        results.select(pick, None, reference, show_progress="hidden", api_visibility="private")
    return page


def main() -> None:
    settings = read_settings(FOLDER)
    searcher = load_searcher(FOLDER, settings["model"], settings["revision"])
    build(searcher, settings["examples"]).launch(theme=THEME, css=CSS, allowed_paths=[str(GALLERY)])


if __name__ == "__main__":
    main()
