"""Votes in SQLite: the study, its invitations, and an answer to each question of each trial."""

from __future__ import annotations

import json
import secrets
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import NamedTuple

from pyrf.evaluation.ab.study import Study, Trial

CHOICES = ("a", "b", "same")
MAX_RATERS = 10_000
MAX_SECONDS = 1e6

_TABLES = """
create table if not exists study (one integer primary key check (one = 0), value text not null);
create table if not exists rater (number integer primary key, token text unique not null);
create table if not exists vote (
  rater integer not null references rater, trial integer not null, question text not null,
  item text not null, a text not null, b text not null, wanted text not null, choice text not null,
  seconds real not null, at text not null default current_timestamp,
  primary key (rater, trial, question)
);
"""


class Vote(NamedTuple):
    """An answer.

    Attributes:
        rater: number.
        trial: number in the rater's plan.
        item, a, b: the clip, and the methods of its sides.
        wanted: the side that a check of attention asked for; else empty.
        choice: "a", "b" or "same".
        seconds: from the trial's begin to its last answer.
        at: UTC.
    """

    rater: int
    trial: int
    question: str
    item: str
    a: str
    b: str
    wanted: str
    choice: str
    seconds: float
    at: str


class Votes:
    """A file of votes. Calls may come from any thread.

    Args:
        path: it is made if it is not there and a study is given.
        study: what is judged; by default what the file says.

    Raises:
        ValueError: when the file is none of votes, or of another study.
    """

    def __init__(self, path: Path, study: Study | None = None) -> None:
        self._path = path
        if study is None and not path.is_file():
            raise ValueError(f"{path}: there is no such file of votes")
        try:
            with self._open() as db:
                if study is not None:
                    db.executescript(_TABLES)
                    value = json.dumps(study.to_dict())
                    db.execute("insert or ignore into study values (0, ?)", (value,))
                found = db.execute("select value from study").fetchone()
        except sqlite3.DatabaseError as error:
            raise ValueError(f"{path}: no file of votes ({error})") from error
        if found is None:
            raise ValueError(f"{path}: it holds no study")
        self.study = Study.from_dict(json.loads(found[0]))
        if study is not None and study != self.study:
            raise ValueError(
                f"{path} has votes on another study; give its folders and options, or a new file"
            )

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        with closing(sqlite3.connect(self._path, timeout=30)) as db, db:
            yield db

    def invite(self, count: int) -> list[str]:
        """Tokens of new raters.

        Raises:
            ValueError: when there would be more than MAX_RATERS.
        """
        tokens = [secrets.token_urlsafe(16) for _ in range(count)]
        with self._open() as db:
            (there,) = db.execute("select count(*) from rater").fetchone()
            if there + count > MAX_RATERS:
                raise ValueError(f"{there + count} raters are more than {MAX_RATERS}")
            db.executemany(
                "insert into rater values (?, ?)", [(there + i, token) for i, token in enumerate(tokens)]
            )
        return tokens

    def tokens(self) -> list[str]:
        """Of all raters, in the order of their numbers."""
        with self._open() as db:
            return [token for (token,) in db.execute("select token from rater order by number")]

    def rater(self, token: str) -> int | None:
        """The number of a rater; None for a token that nobody was given."""
        with self._open() as db:
            found = db.execute("select number from rater where token = ?", (token,)).fetchone()
        return None if found is None else int(found[0])

    def done(self, rater: int) -> int:
        """Trials that a rater has answered; they are answered in order."""
        with self._open() as db:
            (found,) = db.execute(
                "select count(distinct trial) from vote where rater = ?", (rater,)
            ).fetchone()
        return int(found)

    def keep(self, rater: int, number: int, trial: Trial, answers: Mapping[str, str], seconds: float) -> None:
        """Keep the answers of a trial; those given before are replaced.

        Raises:
            ValueError: when a question has no answer, or another one than CHOICES.
        """
        if answers.keys() != self.study.questions.keys():
            raise ValueError(f"answers must be to {', '.join(self.study.questions)}")
        if wrong := [choice for choice in answers.values() if choice not in CHOICES]:
            raise ValueError(f"answers must be {', '.join(CHOICES)}, got {wrong[0]!r:.40}")
        if not 0 <= seconds <= MAX_SECONDS:
            raise ValueError(f"seconds must be within 0..{MAX_SECONDS:g}")
        rows = [
            (rater, number, question, trial.item, trial.a, trial.b, trial.check, choice, seconds)
            for question, choice in answers.items()
        ]
        columns = "rater, trial, question, item, a, b, wanted, choice, seconds"
        with self._open() as db:
            db.executemany(f"insert or replace into vote ({columns}) values ({', '.join('?' * 9)})", rows)

    def all(self) -> list[Vote]:
        """Every answer, by rater and trial."""
        with self._open() as db:
            rows = db.execute("select * from vote order by rater, trial, question").fetchall()
        return [Vote(*row) for row in rows]
