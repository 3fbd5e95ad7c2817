"""Settings of the service: one frozen table, from the environment (prefix ``UNET_``) and the command line.

The descriptions below are the ones in ``unet-service serve --help`` and in docs/settings.md (test:
``test_the_documentation_lists_every_setting``).
"""

from __future__ import annotations

import argparse
import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, SettingsConfigDict

from model.session import Backend, Precision
from service.setting_kinds import ClientHeader, Devices, MemoryBudget, Networks, Origins, PackageFolders, PathPrefix

PREFIX = "UNET_"


class InvalidSettings(Exception):
    """A setting has a value that it cannot have; the message names each, what was found and what is allowed."""


class Settings(BaseSettings):
    """Everything that can be set, with units in the names; read once, passed to :func:`service.app.create_app`."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, env_ignore_empty=True, frozen=True, extra="forbid")

    host: str = Field("127.0.0.1", description="Address to listen on. The containers set 0.0.0.0.")
    port: Annotated[int, Field(ge=0, le=65535)] = Field(
        8000, description="Port to listen on. 0 picks a free port and logs it."
    )
    root_path: PathPrefix = Field(
        "", description="Path prefix under which a proxy publishes the service and which it strips, such as /unet."
    )
    trusted_proxies: Networks = Field(
        "127.0.0.1,::1",
        description="Addresses and networks of proxies, separated by commas, who are trusted to tell the client's "
        "address, which tells users without API keys apart. A single comma: none.",
    )
    client_header: ClientHeader = Field(
        "x-forwarded-for",
        description="Header in which they tell it: x-forwarded-for, or forwarded (RFC 7239). The other is not read.",
    )
    api_keys_file: Path | None = Field(
        None,
        description="File of API keys, one NAME:KEY per line. Empty: no key is needed.",
    )
    cors_origins: Origins = Field(
        "",
        description="Web origins that may call the service from a browser, separated by commas, such as "
        "https://viewer.example.org, or * for all. Empty: only its own page.",
    )
    models_dir: PackageFolders = Field(
        None,
        description="Folders of model packages (folders or zip files), separated as in PATH. The word zoo stands "
        "for the packages that ship with the software. Empty: zoo alone.",
    )
    default_model: str | None = Field(
        None, description="Model for requests that name none: name or name@version. Empty: the first by name."
    )
    rescan_s: Annotated[float, Field(ge=0, allow_inf_nan=False)] = Field(
        5.0,
        description="Seconds between checks for new, changed and removed packages. 0: check at startup only.",
    )
    backend: Backend = Field(
        "auto",
        description="What runs the model: auto, cuda, tensorrt, openvino or cpu. One named explicitly is never "
        "replaced by another.",
    )
    precision: Precision = Field(
        "auto",
        description="Numeric precision: fp32, fp16, bf16, int8 or auto. auto takes the first that agrees with fp32: "
        "int8, bf16, fp32 on a CPU, as far as package and CPU have them; fp16, fp32 on a GPU.",
    )
    require_gpu: bool = Field(
        default=False, description="Stay unready if there is no GPU, instead of running on the CPU."
    )
    devices: Devices = Field(
        "0", description="GPUs to use, numbered from 0, separated by commas, or all. Each gets a copy of the model."
    )
    threads: Annotated[int, Field(ge=0, le=1024)] = Field(
        0, description="CPU threads for the model. 0: one per CPU that the container may use."
    )
    gpu_mem_limit_mb: Annotated[int, Field(ge=0)] = Field(
        0,
        description="Limit on GPU memory for ONNX Runtime's arena, in MiB; each package has an arena of its own. 0: "
        "no limit.",
    )
    engine_cache_dir: str = Field("", description="Folder that keeps built TensorRT engines. Empty: none.")
    memory_budget_mb: MemoryBudget = Field(
        0,
        description="Working memory of all requests together, in MiB, at least 128. 0: what fits, at most 2048.",
    )
    repeat_mb: Annotated[int, Field(ge=0)] = Field(
        64,
        description="Part of it, in MiB, at most a sixteenth, that keeps what the model found in the last images: an "
        "image sent again with another threshold or format does not run again. 0: none.",
    )
    max_body_mb: Annotated[int, Field(ge=1)] = Field(512, description="Largest request body, in MiB. Above it: 413.")
    max_pixels: Annotated[int, Field(ge=1)] = Field(
        2_000_000_000,
        description="Most pixels in one image, all planes together, according to its header. Above it: 413.",
    )
    deadline_s: Annotated[float, Field(gt=0, allow_inf_nan=False)] = Field(
        300.0, description="Most seconds from an image's arrival to its answer. Above it: 504."
    )
    job_deadline_s: Annotated[float, Field(gt=0, allow_inf_nan=False)] = Field(
        3600.0, description="The same limit for a job (respond-async), whose client does not wait on the connection."
    )
    job_keep_s: Annotated[float, Field(gt=0, allow_inf_nan=False)] = Field(
        3600.0, description="Seconds for which the result of a finished job is kept."
    )
    jobs_mb: Annotated[int, Field(ge=0)] = Field(
        8192,
        description="Most space for the results of jobs, in MiB. Fetched results make room for others; above it: "
        "503. 0 refuses jobs.",
    )
    jobs_dir: Path | None = Field(
        None,
        description="Folder for jobs and their results. Replicas that share it answer for each other's jobs. Empty: "
        "a temporary folder that ends with the process.",
    )
    max_backlog_s: Annotated[float, Field(gt=0, allow_inf_nan=False)] = Field(
        120.0,
        description="Most seconds of accepted work that may wait, at the measured speed. Above it: 503, but users "
        "with less than an equal share of it are accepted until twice as much waits.",
    )
    batch_tiles: Annotated[int, Field(ge=1, le=1024)] = Field(8, description="Most tiles in one call of the model.")
    tile_ms: Annotated[float, Field(ge=0, allow_inf_nan=False)] = Field(
        250.0,
        description="Most milliseconds for one tile on a CPU, where that costs at most 3 % of the speed. 0: no limit.",
    )
    cache_dir: str = Field(
        "",
        description="Folder that keeps measured speeds. Empty: the user's cache folder. none: measure at each start.",
    )
    spool_mb: Annotated[int, Field(ge=0)] = Field(
        16, description="Largest upload that stays in memory, in MiB. Larger ones go to the temporary folder."
    )
    upload_limit_mb: Annotated[int, Field(ge=0)] = Field(
        32768,
        description="Most space for all uploads in the temporary folder, in MiB; one of the largest allowed size "
        "always fits. Above it: 503.",
    )
    spool_dir: str = Field(
        "",
        description="Folder on a disk for images and results beyond the memory budget. Empty: the temporary folder.",
    )
    spool_limit_mb: Annotated[int, Field(ge=0)] = Field(
        32768,
        description="Most space in UNET_SPOOL_DIR for all requests together, in MiB. 0 refuses such images with 413.",
    )
    drain_delay_s: Annotated[float, Field(ge=0, allow_inf_nan=False)] = Field(
        0.0,
        description="Seconds after SIGTERM in which the service is unready but still accepts requests, so that load "
        "balancers notice.",
    )
    shutdown_grace_s: Annotated[int, Field(ge=0)] = Field(
        300,
        description="Most seconds that running requests may take once the listener has closed. Above it: 503. Keep "
        "it at the deadline or more, and stop the process no sooner.",
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="Least severe level to log: debug, info, warning or error."
    )
    log_format: Literal["json", "text"] = Field("json", description="json: one JSON object per line. text: for people.")

    @property
    def max_body_bytes(self) -> int:
        """Largest request body."""
        return self.max_body_mb << 20

    @property
    def upload_limit_bytes(self) -> int:
        """Room for all bodies together; one of the largest allowed always has enough."""
        return max(self.upload_limit_mb, self.max_body_mb) << 20


def option_name(field: str) -> str:
    """Command line option of a field: ``memory_budget_mb`` is ``--memory-budget-mb``."""
    return "--" + field.replace("_", "-")


def default_text(info: FieldInfo) -> str:
    """Return the default as a person would type it; empty for None."""
    default = info.get_default()
    if isinstance(default, bool):
        return str(default).lower()
    return "" if default is None else f"{default:g}" if isinstance(default, float) else str(default)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add one option per setting; those that are not given leave no trace, so that the environment counts."""
    group = parser.add_argument_group("settings", "each also as an environment variable, given after its description")
    for name, info in Settings.model_fields.items():
        help_text = f"{info.description} [{default_text(info) or 'empty'}; {PREFIX}{name.upper()}]"
        shared: dict[str, Any] = {"dest": name, "default": argparse.SUPPRESS, "help": help_text.replace("%", "%%")}
        if info.annotation is bool:
            group.add_argument(option_name(name), action=argparse.BooleanOptionalAction, **shared)
        else:
            group.add_argument(option_name(name), metavar="VALUE", **shared)


def load_settings(options: Mapping[str, Any]) -> Settings:
    """Read the settings: ``options`` first, then the environment, then the defaults.

    Parameters
    ----------
    options
        Values by field name, as texts or of the field's type; other names are left alone.

    Raises
    ------
    InvalidSettings
        Where a value is not allowed.

    """
    given = {name: value for name, value in options.items() if name in Settings.model_fields}
    try:
        return Settings(**given)
    except ValidationError as error:
        problems = (
            f"{PREFIX}{str(item['loc'][0]).upper()} ({option_name(str(item['loc'][0]))}) is {item['input']!r}: "
            f"{item['msg'][0].lower()}{item['msg'][1:]}"
            for item in error.errors()
        )
        raise InvalidSettings("; ".join(problems)) from error


def unknown_variables(environment: Mapping[str, str]) -> list[str]:
    """Describe every ``UNET_*`` variable that is no setting, with the setting that may have been meant."""
    known = [PREFIX + name.upper() for name in Settings.model_fields]
    found = []
    for name in sorted(environment):
        if name.startswith(PREFIX) and name not in known and not name.startswith(PREFIX + "TEST_"):
            close = difflib.get_close_matches(name, known, n=1, cutoff=0.75)
            found.append(f"{name} is no setting" + (f"; did you mean {close[0]}?" if close else ""))
    return found
