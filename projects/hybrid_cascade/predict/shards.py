"""Results of many images in files to which each process appends as it goes.

Each line of a shard is JSON: the record of an image, or the mark that a job is complete. What a
process had not completed when it ended is done again, and its records do not count.
"""

import json
import os
import uuid
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any

RUN_FILE = "run.json"
Place = tuple[list[int], Path, int]  # of a record: its "order", the file, and where in it, in bytes


class Shards:
    """The shards in a folder.

    A record is a dict with "order", [index of the item, frame], by which results are sorted.
    """

    def __init__(self, folder: Path, run: dict[str, Any]):
        """
        Args:
            folder: is made if it is not there.
            run: what the results depend on, in terms of JSON. A folder takes results of one run.

        Raises:
            ValueError: if the folder has results of another run.
        """
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / RUN_FILE
        temporary = folder / f"{RUN_FILE}.{uuid.uuid4().hex}"
        temporary.write_text(json.dumps(run))
        try:
            os.link(temporary, path)  # fails if another process was first
        except FileExistsError:
            found = json.loads(path.read_text())
            wrong = sorted(key for key in run | found if run.get(key) != found.get(key))
            if wrong:
                raise ValueError(
                    f"'{folder}' has results of another run, which differs in {', '.join(wrong)}. "
                    "Choose another output folder, or delete this one."
                ) from None
        except OSError:  # a file system without links
            if not path.exists():
                path.write_text(temporary.read_text())
        finally:
            temporary.unlink()
        self._path = folder / f"{uuid.uuid4().hex}.jsonl"

    def append(self, job: int, records: Iterable[dict[str, Any]]) -> None:
        """Add the records of a job as they come, and the mark that it is complete."""
        with self._path.open("a") as file:
            written = 0
            for record in records:
                file.write(json.dumps({"job": job, **record}) + "\n")
                written += 1
            file.write(json.dumps({"job": job, "records": written}) + "\n")

    def completed(self) -> set[int]:
        """Return the jobs that are complete."""
        return {
            line["job"]
            for path in self._paths()
            for _, line in self._lines_of(path)
            if "records" in line
        }

    def places(self) -> list[Place]:
        """Return where the records of complete jobs stand, sorted: all that is kept in memory."""
        places: list[Place] = []
        for path in self._paths():
            pending: dict[int, list] = {}
            for offset, line in self._lines_of(path):
                if "records" in line:
                    places += pending.pop(line["job"], [])[-line["records"] :]
                else:
                    pending.setdefault(line["job"], []).append((line["order"], path, offset))
        places.sort()
        # Of jobs that two processes did, one is enough.
        return [next(same) for _, same in groupby(places, key=itemgetter(0))]

    def read(self, places: Iterable[Place]) -> Iterator[dict[str, Any]]:
        """Yield the records at some places, in this order."""
        with ExitStack() as stack:
            files = {path: stack.enter_context(path.open("rb")) for path in self._paths()}
            for _, path, offset in places:
                files[path].seek(offset)
                yield json.loads(files[path].readline())

    def _paths(self) -> list[Path]:
        return sorted(self.folder.glob("*.jsonl"))

    @staticmethod
    def _lines_of(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
        with path.open("rb") as file:
            offset = 0
            for line in file:
                if line.endswith(b"\n"):  # else the process was killed while it wrote
                    yield offset, json.loads(line)
                offset += len(line)
