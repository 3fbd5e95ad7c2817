"""Jobs of one user, of all that are in a folder."""

from __future__ import annotations

from contextlib import suppress

from service.jobs.errors import JobUnavailable, UnknownJob
from service.jobs.folder import JobsFolder
from service.jobs.record import Place, Record


def of_user(folder: JobsFolder, user: str, before: Place | None, most: int) -> tuple[list[Record], bool]:
    """Return records of a user's jobs, the newest first, and whether there are older ones; waits for a disk.

    Parameters
    ----------
    folder
        Where they are.
    user
        Whose.
    before
        All are older than this; None for the newest.
    most
        How many at most.

    Raises
    ------
    JobUnavailable
        Where the folder cannot be read.

    """
    try:
        entries = folder.room.entries()
    except OSError as error:
        raise JobUnavailable(
            f"0 jobs of {user} can be listed, the folder of jobs cannot be read: {error.strerror}; try again in "
            f"{JobUnavailable.retry_after_s} s, or see to the disk of UNET_JOBS_DIR"
        ) from error
    own = [(entry.seen.submitted, entry.job_id) for entry in entries if entry.seen.user == user]
    places = sorted((Place(submitted, job_id) for submitted, job_id in own if submitted is not None), reverse=True)
    older = [place for place in places if before is None or place < before]
    records: list[Record] = []
    for place in older[:most]:
        with suppress(UnknownJob, JobUnavailable):  # deleted, or broken, since it was listed
            records.append(folder.read(place.job_id))
    return records, len(older) > most
