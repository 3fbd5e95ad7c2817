"""Room for uploads, in memory and on disk, and what each has of it."""

from __future__ import annotations

import errno
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from service.engine.images.spool import MORE_FILES
from service.request_errors import NoRoomForUpload

LIMITS: Mapping[int, str] = {**MORE_FILES, errno.EFBIG: "allow larger files (ulimit -f)"}
"""By error of a system that has set a limit, the remedy."""
_UPLOADS_IN_MEMORY = 4  # of the largest size that may stay in memory


class UploadRoom:
    """Room of all uploads together, unfinished ones too: in memory, and beyond it in the temporary folder.

    Files there have no name, so that nothing which looks into the folder sees them (Kubernetes' ``sizeLimit`` neither);
    they are counted here. What finds no room in memory goes to disk from its first byte.

    Parameters
    ----------
    spool_bytes
        Most of one upload in memory; four times as much is there for all.
    disk_bytes
        Most on disk.
    beside
        Bytes of results of jobs that stand in the temporary folder, too.

    """

    def __init__(self, spool_bytes: int, disk_bytes: int, beside: Callable[[], int] = lambda: 0) -> None:
        self.most_in_memory = spool_bytes
        self.most_on_disk = disk_bytes
        self.all_memory = self.free_memory = _UPLOADS_IN_MEMORY * spool_bytes
        self.on_disk = 0
        self._beside = beside
        self.jobs: set[Share] = set()
        """What uploads have whose jobs may wait for long."""

    def refused(self, what: str, error: OSError) -> NoRoomForUpload:
        """Return what it means that the temporary folder does not take something."""
        results = self._beside() >> 20
        others = f"other uploads and {results} MiB of results of jobs" if results else "other uploads"
        remedy = LIMITS.get(error.errno or 0, "give the folder more room")
        if results and error.errno not in LIMITS:
            remedy = f"fetch and delete jobs, {remedy}, or point UNET_JOBS_DIR to a folder on another disk"
        return NoRoomForUpload(
            f"{what} finds no room beside {others} in the temporary folder: {error.strerror}; try again in "
            f"{NoRoomForUpload.retry_after_s} s, or {remedy}"
        )

    @contextmanager
    def share(self, declared: int | None) -> Iterator[Share]:
        """Keep room for one upload.

        Parameters
        ----------
        declared
            Bytes of the body, None where the client does not say: then as much memory as one upload may have is kept.
            Disk is kept as the body grows, so that what was only declared takes no room from others.

        Raises
        ------
        NoRoomForUpload
            Where there is not enough for the whole body now.

        """
        wanted = self.most_in_memory if declared is None else declared
        in_memory = wanted if wanted <= min(self.most_in_memory, self.free_memory) else 0
        self.free_memory -= in_memory
        share = Share(self, in_memory)
        try:
            share.more_than_kept(declared or 0)
            yield share
        finally:
            self.jobs.discard(share)
            self.free_memory += share.in_memory
            self.on_disk -= share.on_disk


@dataclass(eq=False, slots=True)
class Share:
    """What one upload has of an :class:`UploadRoom`."""

    room: UploadRoom
    in_memory: int
    """Bytes that may stay in memory: all of the upload, or none."""
    on_disk: int = 0
    _received: int = 0

    def more_than_kept(self, size: int) -> int:
        """Bytes on disk that a body of ``size`` bytes needs beside those that are kept for it.

        Raises
        ------
        NoRoomForUpload
            Where other uploads hold them.

        """
        more = max(0, size - self.on_disk) if size > self.in_memory else 0
        if more and self.room.on_disk + more > self.room.most_on_disk:
            raise NoRoomForUpload(
                f"{self.room.on_disk >> 20} MiB of uploads are on disk and this one has {size} bytes or more, the "
                f"limit is {self.room.most_on_disk >> 20} MiB; try again in {NoRoomForUpload.retry_after_s} s, or "
                "raise UNET_UPLOAD_LIMIT_MB"
            )
        return more

    async def counted(self, chunks: AsyncIterator[bytes]) -> AsyncGenerator[bytes, None]:
        """Pass on a body, keeping room for what comes."""
        async for chunk in chunks:
            self._received += len(chunk)
            self._keep_on_disk()
            yield chunk

    def give_to_job(self) -> bool:
        """Leave half of memory and disk to uploads that somebody waits for; but one job alone may have it all.

        Returns
        -------
        bool
            Whether the upload has to go from memory to disk, where room is kept for it.

        Raises
        ------
        NoRoomForUpload
            Where other jobs hold their half, or there is no room on disk.

        """
        in_memory = sum(one.in_memory for one in (self, *self.room.jobs))
        moves = self.in_memory > 0 and 2 * in_memory > self.room.all_memory
        if moves:
            self.room.free_memory += self.in_memory
            self.in_memory = 0
            self._keep_on_disk()
        held = sum(one.on_disk for one in self.room.jobs)
        if self.on_disk and held and 2 * (held + self.on_disk) > self.room.most_on_disk:
            raise NoRoomForUpload(
                f"{len(self.room.jobs)} jobs have {held >> 20} MiB of uploads on disk and this one has "
                f"{self.on_disk} bytes, jobs may have half of {self.room.most_on_disk >> 20} MiB; try again in "
                f"{NoRoomForUpload.retry_after_s} s, or raise UNET_UPLOAD_LIMIT_MB"
            )
        self.room.jobs.add(self)
        return moves

    def _keep_on_disk(self) -> None:
        more = self.more_than_kept(self._received)
        self.room.on_disk += more
        self.on_disk += more
