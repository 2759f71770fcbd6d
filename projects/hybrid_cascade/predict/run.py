"""Predict on many images, in several processes, and continue where a run was interrupted."""

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import cv2
from tqdm import tqdm

from .inputs import InputImage, read_file
from .jobs import Item, make_jobs
from .predictor import Predictor
from .result import Result
from .shards import Shards
from .writers import MERGED, PER_IMAGE, Category, Record

VIDEO = "video"  # the format of videos with the detections drawn on
FORMATS = (*MERGED, *PER_IMAGE, VIDEO)
FAILED_FILE = "failed.txt"
Keep = Callable[[Result], Result]


class PredictionRun:
    """Predictions on a list of images and videos, written into a folder.

    Several processes, on several machines with a common file system, may work on the same folder.
    Each does every n-th job and writes its own shard. A run that was interrupted continues when it
    is started again: jobs that are complete are not repeated.
    """

    def __init__(
        self,
        items: Sequence[Item],
        folder: Path,
        formats: Sequence[str],
        *,
        batch_size: int = 1,
        settings: dict[str, Any] | None = None,
        rank: int = 0,
        num_processes: int = 1,
    ):
        """
        Args:
            items: see `list_items`.
            folder: for what the run writes.
            formats: some of `FORMATS`.
            batch_size: images that go through the model together.
            settings: what else the results depend on, in terms of JSON: config, weights, and so on.
            rank, num_processes: of this process, and how many there are.

        Raises:
            ValueError: for an unknown format, or if the folder has results of another run.
        """
        unknown = sorted(set(formats) - set(FORMATS))
        if unknown:
            raise ValueError(f"Unknown formats {unknown}; there are {', '.join(FORMATS)}")
        self.items, self.folder, self.formats = items, Path(folder), list(formats)
        self.jobs = make_jobs(items, batch_size)
        digest = hashlib.sha256(json.dumps([[i.path, i.name, i.image_id] for i in items]).encode())
        run = {"images": digest.hexdigest(), "batch size": batch_size, "formats": sorted(formats)}
        self.shards = Shards(self.folder / "shards", {**run, **(settings or {})})
        self._own = range(rank, len(self.jobs), num_processes)

    def predict(self, predictor: Predictor, keep: Keep | None = None) -> None:
        """Do those of this process's jobs that are not complete, with a progress bar.

        Args:
            predictor: its `batch_size` is not used.
            keep: changes a result before it is written, for example leaves out classes.
        """
        completed = self.shards.completed()
        left = [job for job in self._own if job not in completed]
        total = sum(len(self.jobs[job]) for job in self._own)
        done = total - sum(len(self.jobs[job]) for job in left)
        with tqdm(total=total, initial=done, unit="image", dynamic_ncols=True) as bar:
            for job in left:
                self.shards.append(job, self._run(job, predictor, keep))
                bar.update(len(self.jobs[job]))

    def is_complete(self) -> bool:
        """Tell whether all jobs are complete, also those of other processes."""
        return len(self.shards.completed()) == len(self.jobs)

    def merge(self, categories: Sequence[Category]) -> int:
        """Write the formats that are one file for all images, and failed.txt.

        Args:
            categories: of the classes, in the order of the model.

        Returns:
            How many images could not be read.
        """
        places = self.shards.places()
        failed = [r for r in self.shards.read(places) if "error" in r]
        path = self.folder / FAILED_FILE
        path.unlink(missing_ok=True)
        if failed:
            path.write_text("".join(f"{r['path']}\t{r['error']}\n" for r in failed))
        for name in self.formats:
            if name in MERGED:
                file_name, write = MERGED[name]
                temporary = self.folder / f"{file_name}.{os.getpid()}"
                records = (r for r in self.shards.read(places) if "error" not in r)
                write(records, temporary, categories)
                os.replace(temporary, self.folder / file_name)
        return len(failed)

    def _run(self, job: int, predictor: Predictor, keep: Keep | None) -> Iterator[Record]:
        """Yield the records of a job: of its images, which go through the model together."""
        images: list[tuple[int, InputImage]] = []
        for index in self.jobs[job]:
            item = self.items[index]
            try:
                frames = read_file(Path(item.path))
                first = next(frames)
                if first.name == str(Path(item.path)):  # not a frame of a video
                    images.append((index, first))
                else:
                    yield from self._run_video(index, chain([first], frames), predictor, keep)
            except (ValueError, OSError, StopIteration) as error:
                reason = " ".join(str(error).split()) or "it has no frames"
                yield {"order": [index, -1], "path": item.path, "error": reason}
        if images:
            results = predictor.predict([image for _, image in images])
            for (index, _), result in zip(images, results, strict=True):
                yield self._write([index, 0], self.items[index].name, result, keep)

    def _run_video(
        self, index: int, frames: Iterable[InputImage], predictor: Predictor, keep: Keep | None
    ) -> Iterator[Record]:
        """Yield the records of the frames of a video, and write the video that is drawn."""
        name, writer = self.items[index].name, None
        try:
            for number, frame in enumerate(frames):
                [result] = predictor.predict([frame])
                if VIDEO in self.formats:
                    if writer is None:
                        writer = self._open_video(index, frame)
                    writer.write((keep(result) if keep else result).draw())
                yield self._write([index, number], f"{name}#{number:06d}", result, keep)
        finally:
            if writer is not None:
                writer.release()

    def _open_video(self, index: int, frame: InputImage) -> cv2.VideoWriter:
        item = self.items[index]
        path = (self.folder / "videos" / item.name).with_suffix(".mp4")
        path.parent.mkdir(parents=True, exist_ok=True)
        source = cv2.VideoCapture(item.path)
        frames_a_second = source.get(cv2.CAP_PROP_FPS) or 25.0
        source.release()
        height, width = frame.image.shape[:2]
        code = cv2.VideoWriter_fourcc(*"mp4v")
        writer = cv2.VideoWriter(str(path), code, frames_a_second, (width, height))
        if not writer.isOpened():
            raise OSError(f"OpenCV can't write the video '{path}'")
        return writer

    def _write(self, order: list[int], name: str, result: Result, keep: Keep | None) -> Record:
        """Write the files that an image has for itself; return its record."""
        if keep is not None:
            result = keep(result)
        for name_of_format in self.formats:
            if name_of_format in PER_IMAGE:
                PER_IMAGE[name_of_format](result, self.folder, name)
        height, width = result.image.shape[:2]
        image = {"name": name, "height": height, "width": width}
        image["image_id"] = self.items[order[0]].image_id
        return {"order": order, **image, "detections": result.to_records()}
