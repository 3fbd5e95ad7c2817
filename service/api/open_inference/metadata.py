"""What the protocol asks of a server and of its models, as JSON."""

from __future__ import annotations

from importlib.metadata import version

from pydantic import BaseModel, ConfigDict, Field

from service.engine.engine import Engine
from service.engine.packages.loading import LoadedModel


class _Document(BaseModel):
    model_config = ConfigDict(frozen=True, protected_namespaces=())


class ServerMetadata(_Document):
    """What serves."""

    name: str = "unet-service"
    version: str = Field(default_factory=lambda: version("unet-service"))
    extensions: list[str] = ["binary_tensor_data", "parameters"]


class Health(_Document):
    """Whether the process turns, and whether requests should come here."""

    live: bool
    ready: bool
    error: str | None = Field(None, description="Why not.")


class ModelHealth(_Document):
    """Whether requests for a model should come here."""

    name: str
    ready: bool = True


class TensorMetadata(_Document):
    """A tensor; -1 is any length."""

    name: str
    datatype: str
    shape: list[int]


class ModelMetadata(_Document):
    """What a model takes and gives."""

    name: str
    versions: list[str] = Field(description="All that are served, highest first.")
    platform: str
    inputs: list[TensorMetadata] = Field(
        description="One image; it may be of any datatype of numbers. Axes in front are those of a stack of planes, "
        "which outputs then have too. A last axis of 1 to 4 after two others is that of channels."
    )
    outputs: list[TensorMetadata] = Field(description="`labels` are UINT32 from 65536 objects on.")

    @classmethod
    def of(cls, engine: Engine, model: LoadedModel) -> ModelMetadata:
        """Describe one package of an engine."""
        spec = model.package.spec
        channels = [len(spec.channels)] if len(spec.channels) > 1 else []
        return cls(
            name=spec.name,
            versions=[other.package.spec.version for other in engine.models if other.package.spec.name == spec.name],
            platform="openvino_onnx" if model.session.backend == "openvino" else "onnxruntime_onnx",
            inputs=[TensorMetadata(name="image", datatype="FP32", shape=[-1, -1, *channels])],
            outputs=[
                TensorMetadata(name="mask", datatype="UINT8", shape=[-1, -1]),
                TensorMetadata(name="labels", datatype="UINT16", shape=[-1, -1]),
                TensorMetadata(name="probabilities", datatype="FP32", shape=[len(spec.classes), -1, -1]),
            ],
        )
