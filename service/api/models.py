"""``GET /models``: which packages are served, and all that is known of one."""

from __future__ import annotations

from fastapi import APIRouter

from service.api.dependencies import EngineOf, SettingsOf
from service.api.openapi import problem_responses
from service.api.schemas import ModelCard, ModelList, ModelSummary

router = APIRouter(prefix="/models", tags=["models"])


@router.get("", summary="List the model packages")
async def list_models(engine: EngineOf, settings: SettingsOf) -> ModelList:
    """Every package that is served, by name, those that are still being loaded, and the others, with the reason."""
    return ModelList(
        models=[ModelSummary.of(engine, model) for model in engine.models],
        loading=list(engine.loading),
        refused=dict(engine.refused),
        kept=dict(engine.kept),
        memory_warning=engine.memory_fit.conflict,
        problem="; ".join(engine.readiness().reasons) or None,
        max_body_bytes=settings.max_body_bytes,
    )


@router.get("/{name}", summary="Describe a model package", responses=problem_responses(401, 404, 503))
async def describe_model(name: str, engine: EngineOf) -> ModelCard:
    """Everything known of the package `name` (its highest version) or `name@version`."""
    return ModelCard.of(engine, engine.model(name))
