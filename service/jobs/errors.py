"""The errors of ``service.jobs``, one tree.

::

    JobError
    ├── UnknownJob     there is none of that id, for this user, any more
    ├── JobExists      one that is to be made has the id of another
    ├── JobNotDone     its result is asked for too early
    ├── JobLost        the replica that worked on it has ended
    ├── JobsOff        this service takes none
    ├── JobsNotListed  without keys nobody can be told whose they are
    ├── JobUnavailable its files cannot be read or changed
    ├── NoRoomForJobs  other jobs or the disk have no room for it
    └── ResultTooLarge there would be none if it were the only one
"""

from __future__ import annotations


class JobError(Exception):
    """Base of every error that ``service.jobs`` raises on purpose."""


class UnknownJob(JobError):
    """There is no such job, or it is somebody else's."""

    def __init__(self, job_id: str, keep_s: float) -> None:
        super().__init__(
            f"there is no job {job_id[:40]!r} (any more); results are kept for {keep_s:g} s, or until others need "
            "their room, and jobs of replicas that share no folder only by their own: send the image again, or see "
            "UNET_JOB_KEEP_S, UNET_JOBS_MB and UNET_JOBS_DIR"
        )


class JobExists(JobError):
    """Whoever sends the image has chosen the id of another job, or sends it for the second time."""

    def __init__(self, job_id: str) -> None:
        super().__init__(
            f"there is a job {job_id} already; where its answer was lost ask GET /jobs/{job_id}, else choose 32 other "
            "hexadecimal digits at random, or none"
        )


class JobNotDone(JobError):
    """There is no result yet."""

    def __init__(self, job_id: str, state: str, retry_after_s: int) -> None:
        super().__init__(
            f"job {job_id} is {state}, not done; ask again in {retry_after_s} s, or with wait=50 to be answered once "
            "it is"
        )
        self.retry_after_s = retry_after_s


class JobLost(JobError):
    """Its replica has given no sign of life."""

    retry_after_s = 1


class JobsOff(JobError):
    """The service takes no jobs, now or later."""

    def __init__(self) -> None:
        super().__init__(
            "this service takes no jobs, UNET_JOBS_MB is 0; wait for the answer (without respond_async, or the header "
            "Prefer: respond-async), or set UNET_JOBS_MB to the room for results, MiB"
        )


class JobsNotListed(JobError):
    """Without keys nobody can be told apart, and who knows the id of a job may fetch and delete it."""

    def __init__(self) -> None:
        super().__init__(
            "0 keys are known, at least 1 is needed: jobs are listed to the user of a key alone, as whoever knows the "
            "id of one may fetch its result; ask for each by its id (GET /jobs/ID), or set UNET_API_KEYS_FILE"
        )


class JobUnavailable(JobError):
    """The disk does not let its files be read or changed."""

    retry_after_s = 10


class NoRoomForJobs(JobError):
    """There are as many jobs or results as may be, or the folder cannot take them."""

    retry_after_s = 60


class ResultTooLarge(JobError):
    """Its result has more bytes than those of all jobs may have."""

    def __init__(self, size: int, limit_bytes: int) -> None:
        super().__init__(
            f"the result has {size} bytes, the limit for those of all jobs together is {limit_bytes} bytes; ask for a "
            "format that compresses, or for mask in place of probabilities, send fewer pixels, wait for the answer "
            "(without respond_async, or the header Prefer: respond-async), or raise UNET_JOBS_MB (where UNET_JOBS_DIR "
            "is not set results may have half of the temporary folder's disk)"
        )
