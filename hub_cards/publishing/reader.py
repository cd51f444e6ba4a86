"""Run as a script, never imported: what `datasets` gives somebody of a data set.

    python -P reader.py NAME ARGUMENTS OUTPUT

Arguments of `load_dataset` are JSON. Writes rows and columns of every split, by configuration, to the JSON file OUTPUT. If it
fails, the last line on the standard output says why.
"""

import json
import sys
from pathlib import Path


# Seconds without a sign of the Hub.
PATIENCE = 100.0


def main(name: str, arguments: str, output: str) -> None:
    from datasets import get_dataset_config_names, load_dataset
    from huggingface_hub.utils import get_session

    # The client would wait for ever.
    get_session().timeout = PATIENCE
    arguments, found = json.loads(arguments), {}
    for config in get_dataset_config_names(name, **arguments):
        # What is made of the files is looked at, not kept.
        splits = load_dataset(name, config, cache_dir=str(Path(output).parent), **arguments)
        found[config] = {
            split: {"rows": len(rows), "columns": {column: repr(kind) for column, kind in rows.features.items()}}
            for split, rows in splits.items()
        }
    Path(output).write_text(json.dumps(found))


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except Exception as error:
        print(" ".join(f"{type(error).__name__}: {error}".split()))
        raise
