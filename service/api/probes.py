"""What orchestrators and Prometheus ask. Async and without a lock: busy is neither dead nor unready."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response
from prometheus_client.exposition import choose_encoder

from service.api.dependencies import EngineOf, MetricsOf, ReadinessOf
from service.api.schemas import Liveness, ReadinessReport

router = APIRouter(tags=["operations"])


@router.get(
    "/livez",
    summary="Is the process alive?",
    responses={503: {"model": Liveness, "description": "Only a new process can help; `status` says why."}},
)
async def livez(engine: EngineOf, response: Response) -> Liveness:
    """200 as long as the event loop turns, under any load and while packages load; 503 where a net fails or hangs."""
    if (reason := engine.lost) is None:
        return Liveness()
    response.status_code = 503
    return Liveness(status=reason)


@router.get(
    "/readyz",
    summary="Should requests come here?",
    responses={503: {"model": ReadinessReport, "description": "Not ready; `reasons` says why."}},
)
async def readyz(engine: EngineOf, readiness: ReadinessOf) -> ReadinessReport:
    """200 once packages are loaded and self-tested; 503 and why before, while draining, or lacking a required GPU."""
    return ReadinessReport(
        ready=readiness.ready,
        reasons=list(readiness.reasons),
        models=[model.package.spec.reference for model in engine.models],
        backlog_seconds=round(engine.backlog_seconds, 3),
    )


@router.get("/metrics", summary="Metrics for Prometheus", response_class=Response)
async def metrics(request: Request, collected: MetricsOf) -> Response:
    """Prometheus text format, or OpenMetrics where it is asked for."""
    encode, content_type = choose_encoder(request.headers.get("accept", ""))
    return Response(encode(collected.registry), headers={"Content-Type": content_type})
