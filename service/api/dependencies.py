"""What routes are given: the objects that the application made once. Async, so that no thread pool is involved."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Request, Response

from service.api.upload_room import UploadRoom
from service.engine.engine import Engine
from service.engine.errors import NotReady
from service.engine.request import Readiness
from service.jobs.owner import Jobs
from service.settings import Settings
from service.telemetry import Metrics


async def _engine(request: Request) -> Engine:
    engine: Engine = request.app.state.engine
    return engine


async def _settings(request: Request) -> Settings:
    settings: Settings = request.app.state.settings
    return settings


async def _metrics(request: Request) -> Metrics:
    metrics: Metrics = request.app.state.metrics
    return metrics


async def _jobs(request: Request) -> Jobs:
    jobs: Jobs = request.app.state.jobs
    return jobs


async def _upload_room(request: Request) -> UploadRoom:
    room: UploadRoom = request.app.state.upload_room
    return room


EngineOf = Annotated[Engine, Depends(_engine)]
SettingsOf = Annotated[Settings, Depends(_settings)]
MetricsOf = Annotated[Metrics, Depends(_metrics)]
JobsOf = Annotated[Jobs, Depends(_jobs)]
UploadRoomOf = Annotated[UploadRoom, Depends(_upload_room)]


async def _readiness(engine: EngineOf, response: Response) -> Readiness:
    """Whether requests should come here; where not, the answer has status 503 and says when to ask again."""
    readiness = engine.readiness()
    if not readiness.ready:
        response.status_code = 503
        response.headers["Retry-After"] = str(NotReady.retry_after_s)
    return readiness


ReadinessOf = Annotated[Readiness, Depends(_readiness)]
