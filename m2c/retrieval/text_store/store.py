"""Where captions and edits are kept for good, as a language model is asked once and its answer serves every run."""

import json
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from .text import Text, canonical


FILE_NAME = "texts.sqlite"
TABLES = """
    CREATE TABLE IF NOT EXISTS generators (
        id INTEGER PRIMARY KEY, kind TEXT, model TEXT, content TEXT, UNIQUE (kind, content)
    );
    CREATE TABLE IF NOT EXISTS texts (
        id INTEGER PRIMARY KEY, key TEXT UNIQUE, generator INTEGER REFERENCES generators, source TEXT, text TEXT
    );
"""
AT_ONCE = 500
# Seconds. Who imports a large file writes for some minutes at a time; the lock of a process that is dead is gone with it.
PATIENCE = 600


class TextStore:
    """Texts by key, in a database that several processes and runs may read and write. What is added is there for good.

    SQLite's journal is the plain one, which also works on the network folders of clusters, where its write-ahead log does not.

    Args:
        path: of the database; made if it does not exist.

    Raises:
        OSError: if the database cannot be opened, read or written; so do all methods.
    """

    def __init__(self, path: str | Path):
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        with self._named_errors():
            # A transaction takes the lock where it begins: one that began by reading could not wait for it.
            self.database = sqlite3.connect(path, timeout=PATIENCE, isolation_level="IMMEDIATE")
            self.database.executescript(TABLES)

    def find(self, keys: Iterable[str]) -> dict[str, str]:
        """The texts that are there, by [`text_key`]."""
        keys, found = list(keys), {}
        with self._named_errors():
            for start in range(0, len(keys), AT_ONCE):
                part = keys[start : start + AT_ONCE]
                query = f"SELECT key, text FROM texts WHERE key IN ({','.join('?' * len(part))})"
                found.update(self.database.execute(query, part))
        return found

    def add(self, texts: Iterable[Text]) -> int:
        """Adds texts, all or none: if `texts` raises, or the process is killed, the store is what it was.

        A text whose key is there already stays what it is. Half characters (lone surrogates, which a server may cut out of an
        emoji) become U+FFFD, as no tokenizer takes them.

        Returns:
            How many of them are new.
        """
        new, generators = 0, {}
        with self._named_errors(), self.database:
            for text in texts:
                generator = text.kind, canonical(text.generator)
                if generator not in generators:
                    generators[generator] = self._generator(*generator, text.generator["model"])
                row = (text.key, generators[generator], canonical(text.source), _whole(text.text))
                new += self.database.execute(
                    "INSERT OR IGNORE INTO texts (key, generator, source, text) VALUES (?, ?, ?, ?)", row
                ).rowcount
        return new

    def all(self, kind: str | None = None, model: str | None = None) -> Iterator[Text]:
        """Texts in the order in which they were added, of one kind or model or of all. Others may write meanwhile."""
        query = """
            SELECT texts.id, kind, content, source, text FROM texts JOIN generators ON generator = generators.id
            WHERE texts.id > ? AND kind = ifnull(?, kind) AND model = ifnull(?, model) ORDER BY texts.id LIMIT ?
        """
        last = 0
        while True:
            with self._named_errors():
                rows = self.database.execute(query, (last, kind, model, AT_ONCE)).fetchall()
            if not rows:
                return
            for _, kind_of_row, generator, source, text in rows:
                yield Text(kind_of_row, json.loads(generator), json.loads(source), text)
            last = rows[-1][0]

    def counts(self, kind: str, model: str) -> list[tuple[dict, int]]:
        """The generators of one kind with the model of this name, and how many texts each has."""
        query = """
            SELECT content, count(*) FROM generators JOIN texts ON generator = generators.id
            WHERE kind = ? AND model = ? GROUP BY generators.id
        """
        with self._named_errors():
            return [(json.loads(content), count) for content, count in self.database.execute(query, (kind, model))]

    def _generator(self, kind: str, content: str, model: str) -> int:
        self.database.execute(
            "INSERT OR IGNORE INTO generators (kind, model, content) VALUES (?, ?, ?)", (kind, model, content)
        )
        found = self.database.execute("SELECT id FROM generators WHERE kind = ? AND content = ?", (kind, content))
        return found.fetchone()[0]

    @contextmanager
    def _named_errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.OperationalError as error:
            raise OSError(
                f"texts cannot be kept in {self.path}: {error}; what was added before is kept. Make room, or choose another "
                "--cache_dir"
            ) from error
        except sqlite3.DatabaseError as error:
            raise OSError(f"{self.path} cannot be used: {error}; move it away, or choose another --cache_dir") from error


def _whole(text: str) -> str:
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
